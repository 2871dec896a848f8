"""Runs that went badly, or oddly, have a page that is right and says so."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from final_samples import CLASSES, answer_classes, sample_targets, write_exact, write_final, write_run_json
from optuna.trial import TrialState
from report_samples import make_findings, make_study, make_trial, write_journal

from search.report import write_report
from search.report.blocks import DASH
from search.report.comparable import judge
from search.report.findings import Findings
from search.report.markdown import render_markdown
from search.report.page import build_page
from search.report.tables import cost, trials
from search.report.verdict import answer, cautions
from search.results import WEIGHTS_NAME


def text_of(findings: Findings) -> str:
    return render_markdown(build_page(findings, judged=judge(findings), configs={}))


def failing(number: int) -> Any:
    return make_trial([], state=TrialState.FAIL, reason=f"out of memory at batch size {number}", config=None)


def test_a_run_with_no_finished_trial_says_that_there_is_nothing_to_compare(tmp_path: Path) -> None:
    write_run_json(tmp_path)
    write_journal(tmp_path, make_study("cnn", [make_trial([0.9, 0.8], state=TrialState.RUNNING)]))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "No backbone has been evaluated on the test split yet, so there is nothing to compare." in page
    assert "This search is not finished: 1 trial has not ended when this page was written." in page
    assert "nan" not in page


def test_a_class_that_no_test_galaxy_has_gets_no_recall_and_is_named(tmp_path: Path) -> None:
    targets = sample_targets((240, 120))
    write_final(tmp_path, "cnn", targets, answer_classes(targets, skill=2.0, seed=1))
    counts = {"train": (500, 200, 100), "val": (60, 30, 10), "test": (240, 120, 0)}
    sizes = {"train": 800, "val": 100, "test": 360}
    study = make_study("cnn", [make_trial([0.5])])
    text = text_of(make_findings(tmp_path, [study], class_counts=counts, split_sizes=sizes))
    assert (
        "No edge\\_on is among the galaxies that gave the final scores: balanced accuracy and AUROC leave it out"
        in text
    )
    (row,) = [line for line in text.splitlines() if line.startswith("| edge\\_on | 0 | ")]
    assert row.split(" | ")[3] == DASH


def test_a_backbone_whose_every_trial_failed_is_named_with_the_reasons(tmp_path: Path) -> None:
    write_exact(tmp_path, "cnn", 300, nll=0.5)
    studies = [make_study("cnn", [make_trial([0.5])]), make_study("vgg16", [failing(64), failing(32)])]
    findings = make_findings(tmp_path, studies)
    assert "Every trial of vgg16 failed; the reasons are below." in cautions(findings)
    text = text_of(findings)
    assert "| vgg16 | failed | out of memory at batch size 64 | 1 | \\#0 |" in text
    # Its line in the comparison has a dash for each score, not a nought.
    (row,) = [line for line in text.splitlines() if line.startswith("| vgg16 | train (800)")]
    assert set(row.split(" | ")[2:]) <= {DASH, f"{DASH} |"}


def test_scores_that_are_not_finite_are_left_out_and_named(tmp_path: Path) -> None:
    targets = sample_targets()
    outputs = answer_classes(targets, skill=2.0, seed=1)
    empty = {"nll": math.nan, "accuracy": math.nan}
    write_final(tmp_path, "cnn", targets, outputs, metrics={"train": empty, "val": empty, "test": empty})
    curve = [math.nan, math.nan]
    findings = make_findings(tmp_path, [make_study("cnn", [make_trial(curve, state=TrialState.FAIL)])])
    assert findings.standings == {}
    assert "The retraining of cnn, seed 1, has no finite validation nll: it is left out." in cautions(findings)
    assert answer(findings)[0] == "No trial got as far as a validation value, so there is nothing to compare."
    assert "nan" not in text_of(findings)


def test_a_deleted_checkpoint_is_named_and_changes_no_score(tmp_path: Path) -> None:
    runs = [write_exact(tmp_path, "cnn", 300, nll=0.5, seed_index=index) for index in range(3)]
    for run in (runs[0], runs[2]):
        (run.folder(tmp_path) / WEIGHTS_NAME).write_bytes(b"weights")
    findings = make_findings(tmp_path, [make_study("cnn", [make_trial([0.5])])])
    (group,) = trials.trained(findings).groups
    assert group[1][0][1] == "final/cnn/config-0-seed-0/weights.safetensors and 2 more seeds (deleted: seed 2)"
    assert findings.standings["cnn"].value("test", "accuracy") == pytest.approx(0.75)


def test_class_names_with_html_in_them_stay_names(tmp_path: Path) -> None:
    evil = ["<script>alert(1)</script>", "a&b", '"><img src=x onerror=alert(2)>']
    write_run_json(tmp_path)
    record = (tmp_path / "run.json").read_text()
    for name, other in zip(CLASSES, evil, strict=True):
        record = record.replace(f'"{name}"', f'"{other}"'.replace('"><', '\\"><'))
    (tmp_path / "run.json").write_text(record)
    write_journal(tmp_path, make_study("cnn", [make_trial([0.5])]))
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_repeated_configurations_cost_nothing_and_are_told_apart(tmp_path: Path) -> None:
    stopped = make_trial([0.6], state=TrialState.PRUNED)
    rerun = make_trial([0.6, 0.5, 0.4], finalist_of=0)
    longer = make_trial([0.7, 0.6, 0.5, 0.45], promoted_from=1)
    # As a search writes it: the twin's values, an end, and no epoch of its own.
    copied = make_trial([0.6], state=TrialState.PRUNED, duplicate_of=0, seconds=0.0, **{"epoch:1": None})
    findings = make_findings(
        tmp_path, [make_study("cnn", [stopped, make_trial([0.7, 0.6, 0.5]), rerun, longer, copied])]
    )
    table = findings.trials.table.set_index("trial")
    assert table["epochs"].tolist() == [1, 3, 3, 4, 0]
    assert table["seconds"].tolist() == [10.0, 30.0, 30.0, 40.0, 0.0]
    assert len(findings.trials.curves) == 1 + 3 + 3 + 4
    assert "ran 4 trials (11 epochs)" in answer(findings)[-1]
    told = trials.reruns(findings)
    assert told is not None
    assert [rows[0][1:] for _, rows in told.groups] == [("1", "#4 of #0"), ("1", "#2 of #0"), ("1", "#3 of #1")]
    found = cost.cost(findings)
    cells = dict(zip(found.columns[1:], found.groups[0][1][0], strict=True))
    assert {name: cells[name] for name in ("Trials", "Complete", "Stopped", "Reused", "Epochs")} == {
        "Trials": "4", "Complete": "3", "Stopped": "1", "Reused": "1", "Epochs": "11",
    }  # fmt: skip
    assert trials.trained(findings).groups[0][1][0][2] == "the configuration of #0, run again to the full length"


def test_a_race_is_explained_once(tmp_path: Path) -> None:
    words = "vgg16 left the race after 4 trials, its best value being 0.7000"
    loser = make_study("vgg16", [make_trial([0.7])])
    loser.set_user_attr("dropped", words)
    studies = [make_study("cnn", [make_trial([0.5])]), loser]
    findings = make_findings(tmp_path, studies, notes=(f"{words}.", "The disk was slow."))
    said = cautions(findings)
    assert [words in sentence for sentence in said].count(True) == 1
    assert any("tuned less than those that stayed" in sentence for sentence in said)
    assert said[-1] == "The disk was slow."
    assert "over 2 backbones, of which vgg16 left a race early, in" in answer(findings)[-1]


def test_many_galaxies_of_one_class_only_can_be_reported(tmp_path: Path) -> None:
    targets = np.zeros(50, dtype=np.int64)
    write_final(tmp_path, "cnn", targets, answer_classes(targets, skill=3.0, seed=1))
    counts = {"train": (500, 200, 100), "val": (60, 30, 10), "test": (50, 0, 0)}
    findings = make_findings(tmp_path, [make_study("cnn", [make_trial([0.5])])], class_counts=counts)
    assert math.isnan(findings.standings["cnn"].value("test", "auroc"))
    assert "No spiral\\_cw and edge\\_on is among" in text_of(findings)
