"""The pictures draw what the trials say."""

import math
import re
from pathlib import Path

import pytest
from final_samples import write_exact
from optuna.trial import TrialState, create_trial
from report_samples import make_findings, make_info, make_study, make_trial, parse_svg, random_search

from search.report.collect import collect
from search.report.comparable import at_equal_budget, importances
from search.report.figures import classes, parameters, results
from search.report.figures.curves import _best_so_far, _epoch_ticks, _limits, learning_curves, progress
from search.report.figures.style import THEME

SVG = "{http://www.w3.org/2000/svg}"


def test_best_so_far_steps_where_a_value_improves() -> None:
    study = make_study("cnn", [make_trial([0.9, 0.7]), make_trial([math.nan, 0.8]), make_trial([0.6, 0.65])])
    curves = collect([study]).curves
    assert _best_so_far(curves, make_info()) == ([1, 2, 5, 6], [0.9, 0.7, 0.6, 0.6])
    rising = make_info(objective="accuracy", direction="max")
    assert _best_so_far(curves, rising) == ([1, 6], [0.9, 0.9])


def test_epochs_count_in_the_order_in_which_they_ended() -> None:
    """Two trials side by side, the second one faster: 0.8, 0.9, 0.6, 0.7, 0.75."""
    slow, fast = (
        {"epoch:1": {"elapsed_s": first}, "epoch:2": {"elapsed_s": second}} for first, second in ((9, 20), (5, 10))
    )
    slow["epoch:3"] = {"elapsed_s": 30}
    curves = collect([make_study("cnn", [make_trial([0.9, 0.7, 0.75], **slow), make_trial([0.8, 0.6], **fast)])]).curves
    assert _best_so_far(curves, make_info()) == ([1, 3, 5], [0.8, 0.6, 0.6])


def test_the_frame_holds_the_best_share_of_values() -> None:
    values = [0.4, 0.5, 0.6, 9.0]
    low, high = _limits(values, make_info(), shown=0.75)
    assert low < 0.4
    assert 0.6 < high < 1
    low, high = _limits(values, make_info(direction="max"), shown=0.25)
    assert low < 9.0 < high
    assert low > 8


@pytest.mark.parametrize(
    ("max_epochs", "rungs", "ticks"),
    [
        (1, (), [1]),
        (9, (1, 3), [1, 3, 9]),
        (10, (1, 3, 9), [1, 3, 10]),
        (27, (3, 6, 9, 12, 15, 18, 21, 24), [1, 3, 6, 9, 12, 15, 18, 27]),
        (81, (9, 18, 27, 36, 45, 54, 63, 72), [1, 9, 18, 27, 36, 45, 63, 81]),
    ],
)
def test_no_two_labels_of_epochs_meet(max_epochs: int, rungs: tuple[int, ...], ticks: list[int]) -> None:
    assert _epoch_ticks(make_info(max_epochs=max_epochs, rungs=rungs)) == ticks


def test_pictures_are_well_formed_and_take_their_colours_from_the_page(tmp_path: Path) -> None:
    stopped = make_trial([0.9], state=TrialState.PRUNED)
    failed = make_trial([0.8, math.nan], state=TrialState.FAIL)
    found = make_findings(tmp_path, [make_study("$a_b$ <&> 銀河", [make_trial([0.9, 0.5, 0.6]), stopped, failed])])
    first = progress(found)
    assert first is not None
    pictures = [first, *learning_curves(found)]
    assert len(pictures) == 2
    for picture in pictures:
        root = parse_svg(picture.svg)
        bare = re.sub(r"var\([^)]*\)", "", picture.svg)
        assert not [color for color in THEME if color in bare]
        assert "var(--ink, #1c1b19)" in picture.svg
        assert picture.png.startswith(b"\x89PNG")
        assert root.get("width") is None
    words = ["".join(text.itertext()) for text in parse_svg(first.svg).iter(f"{SVG}text")]
    assert " $a_b$ <&> 銀河" in words
    assert "Epochs spent, in the order of their ends" in words
    assert pictures[1].text.startswith(
        "3 trials: 1 complete, 1 stopped early, 1 failed. The best, trial 0, goes from 0.9000"
    )


def test_ids_of_two_pictures_do_not_meet(tmp_path: Path) -> None:
    found = make_findings(tmp_path, [make_study(name, [make_trial([0.9, 0.5])]) for name in ("a", "b")])
    ids = [
        {element.get("id") for element in parse_svg(picture.svg).iter() if element.get("id")}
        for picture in learning_curves(found)
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_there_is_nothing_to_draw_without_a_value(tmp_path: Path) -> None:
    found = make_findings(tmp_path, [make_study("a", [make_trial([math.nan], state=TrialState.FAIL)])])
    assert progress(found) is None
    assert learning_curves(found) == ()
    assert results.trade_offs(found) == ()
    assert classes.confusions(found) == ()
    assert classes.reliabilities(found) == ()


def test_a_complete_trial_without_its_epochs_is_left_out(tmp_path: Path) -> None:
    found = make_findings(tmp_path, [make_study("a", [create_trial(value=0.1), make_trial([0.5])])])
    assert learning_curves(found)[0].text == "1 trial: 1 complete, 0 stopped early, 0 failed."


def test_a_long_name_leaves_room_for_the_lines(tmp_path: Path) -> None:
    first = progress(make_findings(tmp_path, [make_study("timm:" + "x" * 200, [make_trial([0.9, 0.5])])]))
    assert first is not None
    words = ["".join(text.itertext()) for text in parse_svg(first.svg).iter(f"{SVG}text")]
    assert f" timm:{'x' * 13}…{'x' * 11}" in words


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(1, 1), (2, 2), (3, 3)], [2]),
        ([(1, 3), (2, 2), (3, 1)], [0, 1, 2]),
        ([(1, 3), (2, 1), (3, 2)], [0, 2]),
        ([(1, 1), (1, 2)], [1]),
        ([], []),
    ],
)
def test_the_pareto_front_is_what_nothing_beats(points: list[tuple[float, float]], front: list[int]) -> None:
    assert results.pareto_front(points) == front


def test_accuracy_against_cost_says_who_is_on_the_front(tmp_path: Path) -> None:
    write_exact(tmp_path, "fast", 300, nll=0.5, images_per_s=2000.0, flops=None)
    write_exact(tmp_path, "slow", 340, nll=0.4, images_per_s=100.0, flops=None)
    write_exact(tmp_path, "bad", 200, nll=0.9, images_per_s=50.0, flops=None)
    studies = [make_study(name, [make_trial([0.5])]) for name in ("fast", "slow", "bad")]
    (figure,) = results.trade_offs(make_findings(tmp_path, studies))
    assert figure.text.startswith("slow: 85.0 % (")
    assert "at 100." in figure.text
    assert figure.text.endswith("is both better and cheaper: slow and fast.")


def test_confusions_say_what_is_taken_for_what(tmp_path: Path) -> None:
    write_exact(tmp_path, "cnn", 400, nll=0.5)
    write_exact(tmp_path, "vgg16", 0, nll=0.9)
    found = make_findings(tmp_path, [make_study("cnn", [make_trial([0.5])]), make_study("vgg16", [])])
    texts = [figure.text for figure in classes.confusions(found)]
    assert texts[0] == "No test galaxy is taken for another class."
    assert texts[1].startswith("100.0 % of round are taken for spiral_cw.")
    # All answers have a confidence of 80 %, none is right.
    assert classes.reliabilities(found)[1].text == (
        "ECE 0.800. Most answers, 100.0 %, have a mean confidence of 80.0 %, and 0.0 % of them are right."
    )


def test_parameters_are_drawn_where_they_lie(tmp_path: Path) -> None:
    found = make_findings(tmp_path, [random_search("cnn", num_trials=60, level=0.4, seed=1)])
    trials = at_equal_budget(found, "cnn")
    assert trials is not None
    rate = parameters.parameter_axis(found, trials, "learning_rate")
    number = next(iter(trials.values))
    value = found.trials.params["cnn", number]["learning_rate"]
    assert rate.positions[number] == pytest.approx((math.log10(value) + 5) / 5)
    stages = parameters.parameter_axis(found, trials, "trainable_stages")
    assert [label for _, label in stages.ticks] == ["0", "2", "None"]
    shares = importances(found, trials)
    pictures = [
        parameters.importance(found, {"cnn": shares}),
        parameters.slices(found, trials, list(shares)),
        parameters.parallel(found, trials, list(shares)),
    ]
    assert all(picture is not None and parse_svg(picture.svg) is not None for picture in pictures)
    slices = parameters.slices(found, trials, ["learning_rate"])
    assert slices is not None
    words = re.search(r"learning_rate: the best fifth lies around (0\.\d+) of its range, near (\S+)\.", slices.text)
    assert words is not None
    # The range of the learning rate begins at 1e-5 and has five decades.
    assert (math.log10(float(words[2])) + 5) / 5 == pytest.approx(float(words[1]), abs=0.06)
    assert parameters.importance(found, {}) is None
    assert parameters.slices(found, trials, []) is None
