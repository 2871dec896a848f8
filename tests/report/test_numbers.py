"""The tables beside the page are what other libraries make of the raw answers, and lack nothing of the page."""

from pathlib import Path

import numpy as np
import pytest
import sklearn.metrics as sk
from final_samples import answer_classes, sample_targets, write_final
from report_samples import make_findings, make_study, make_trial
from sklearn.calibration import calibration_curve

from galaxy_models.morphology.tree import GZ2
from galaxy_models.task import Task
from search.report import numbers
from search.report.comparable import judge


def test_calibration_is_scikit_learns(tmp_path: Path) -> None:
    targets = sample_targets()
    outputs = answer_classes(targets, skill=1.5, seed=1)
    write_final(tmp_path, "cnn", targets, outputs)
    table = numbers.calibration_table(make_findings(tmp_path, []))
    right = outputs.argmax(axis=1) == targets
    observed, predicted = calibration_curve(right, outputs.max(axis=1), n_bins=15)
    assert table["mean_observed"].to_numpy() == pytest.approx(observed)
    assert table["mean_predicted"].to_numpy() == pytest.approx(predicted)
    assert table["answers"].sum() == 400
    assert ((table["from"] <= table["mean_predicted"]) & (table["mean_predicted"] <= table["to"])).all()


def test_questions_have_scikit_learns_errors_and_a_calibration_each(tmp_path: Path) -> None:
    targets, outputs = np.random.default_rng(5).random((2, 60, 37)).astype(np.float32)
    task = Task("votes", GZ2.columns)
    write_final(tmp_path, "cnn", targets, outputs, task=task)
    findings = make_findings(tmp_path, [], task=task, objective="rmse", class_counts={})
    table = numbers.question_table(findings).set_index("question")["rmse"]
    assert len(table) == 11
    columns = GZ2.questions[4].columns
    expected = sk.root_mean_squared_error(targets[:, columns].ravel(), outputs[:, columns].ravel())
    assert table.iloc[4] == pytest.approx(expected, rel=1e-5)
    answers = numbers.calibration_table(findings).groupby("question", sort=False)["answers"].sum()
    assert answers.tolist() == [60 * len(one.answers) for one in GZ2.questions]


def test_the_selected_trial_and_the_lengths_compared_are_there(tmp_path: Path) -> None:
    targets = sample_targets()
    for index, nll in enumerate((0.6, 0.7)):
        values = {"nll": nll}
        metrics = {"train": values, "val": values, "test": {"accuracy": 0.1}}
        write_final(
            tmp_path, "cnn", targets, answer_classes(targets, skill=1.0, seed=1), trial=1, seed_index=index,
            metrics=metrics,
        )  # fmt: skip
    kinds = [{"weights": "none"}, {"weights": "imagenet", "trainable_stages": 0}]
    trials = [make_trial([0.9, 0.5 + 0.1 * place], config=kind) for place, kind in enumerate(kinds)]
    findings = make_findings(tmp_path, [make_study("cnn", trials)], rungs=(1,), max_epochs=2)
    (row,) = numbers.selection_table(findings).itertuples(index=False)
    assert tuple(row)[:4] == ("cnn", 1, 0.6, pytest.approx(0.65))
    assert row.spread_over_seeds == pytest.approx(0.1 / 2**0.5)
    found = numbers.transfer_table(judge(findings))
    assert found.to_numpy().tolist() == [
        ["cnn", 1, "from scratch", 0.9],
        ["cnn", 1, "frozen", 0.9],
        ["cnn", 2, "from scratch", 0.5],
        ["cnn", 2, "frozen", 0.6],
    ]
