"""The pictures draw what the trials say."""

import math

from optuna.trial import TrialState, create_trial
from report_samples import make_info, make_study, make_trial, parse_svg

from search.report.collect import collect
from search.report.figures import THEME, _best_so_far, _limits, learning_curves, progress

SVG = "{http://www.w3.org/2000/svg}"


def test_best_so_far_steps_where_a_value_improves() -> None:
    study = make_study("cnn", [make_trial([0.9, 0.7]), make_trial([math.nan, 0.8]), make_trial([0.6, 0.65])])
    curves = collect([study]).curves
    assert _best_so_far(curves, make_info()) == ([1, 2, 5, 6], [0.9, 0.7, 0.6, 0.6])
    rising = make_info(objective="accuracy", direction="max")
    assert _best_so_far(curves, rising) == ([1, 6], [0.9, 0.9])


def test_the_frame_holds_the_best_share_of_values() -> None:
    values = [0.4, 0.5, 0.6, 9.0]
    low, high = _limits(values, make_info(), shown=0.75)
    assert low < 0.4
    assert 0.6 < high < 1
    low, high = _limits(values, make_info(direction="max"), shown=0.25)
    assert low < 9.0 < high
    assert low > 8


def test_pictures_are_well_formed_and_take_their_colours_from_the_page() -> None:
    stopped = make_trial([0.9], state=TrialState.PRUNED)
    failed = make_trial([0.8, math.nan], state=TrialState.FAIL)
    trials = collect([make_study("$a_b$ <&> 銀河", [make_trial([0.9, 0.5, 0.6]), stopped, failed])])
    first = progress(trials, make_info())
    assert first is not None
    pictures = [first, *learning_curves(trials, {}, make_info())]
    assert len(pictures) == 2
    for picture in pictures:
        root = parse_svg(picture.svg)
        assert not [placeholder for placeholder in THEME if placeholder in picture.svg]
        assert "var(--ink, #1c1b19)" in picture.svg
        assert root.get("width") is None
    words = ["".join(text.itertext()) for text in parse_svg(first.svg).iter(f"{SVG}text")]
    assert " $a_b$ <&> 銀河" in words
    assert "Epochs spent, in the order of the trials" in words
    assert pictures[1].text.startswith(
        "3 trials: 1 complete, 1 stopped early, 1 failed. The best, trial 0, goes from 0.9000"
    )


def test_ids_of_two_pictures_do_not_meet() -> None:
    trials = collect([make_study(name, [make_trial([0.9, 0.5])]) for name in ("a", "b")])
    ids = [
        {element.get("id") for element in parse_svg(picture.svg).iter() if element.get("id")}
        for picture in learning_curves(trials, {}, make_info())
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_there_is_nothing_to_draw_without_a_value() -> None:
    trials = collect([make_study("a", [make_trial([math.nan], state=TrialState.FAIL)])])
    assert progress(trials, make_info()) is None
    assert learning_curves(trials, {}, make_info()) == ()


def test_a_complete_trial_without_its_epochs_is_left_out() -> None:
    trials = collect([make_study("a", [create_trial(value=0.1), make_trial([0.5])])])
    assert learning_curves(trials, {}, make_info())[0].text == "1 trial: 1 complete, 0 stopped early, 0 failed."


def test_a_long_name_leaves_room_for_the_lines() -> None:
    first = progress(collect([make_study("timm:" + "x" * 200, [make_trial([0.9, 0.5])])]), make_info())
    assert first is not None
    words = ["".join(text.itertext()) for text in parse_svg(first.svg).iter(f"{SVG}text")]
    assert f" timm:{'x' * 13}…{'x' * 11}" in words
