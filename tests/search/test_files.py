"""The folder of a run stays small: its bound, whatever happens in a search."""

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from two_spaces import epoch, make_ledger

from search.entry import Entry
from search.files import state_path, sweep, weights_path


def entry(number: int, *, best_epoch: int = 1) -> Entry:
    return Entry("a", number, number, {"epochs": 9}, {}, best_value=0.5, best_epoch=best_epoch)


def put(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    return path


def test_what_is_wanted_is_left_and_all_else_deleted(tmp_path: Path) -> None:
    def weights(number: int, at: int) -> Path:
        return put(weights_path(tmp_path, "a", number, at))

    best, running = entry(3, best_epoch=2), entry(7, best_epoch=4)
    wanted = [
        weights(3, 2),
        weights(7, 4),
        weights(7, 5),  # may be better, and is not reported yet
        put(state_path(tmp_path, "a", 7)),
        put(tmp_path / "weights" / "a" / ".trial-00007-epoch-0006.safetensors.1234"),
        put(tmp_path / "states" / "a" / ".trial-00007.pt.1234"),
        put(weights_path(tmp_path, "b", 1, 1)),  # another space's
    ]
    unwanted = [
        weights(3, 1),
        weights(7, 3),
        weights(1, 1),
        put(state_path(tmp_path, "a", 3)),
        put(state_path(tmp_path, "a", 1)),
        put(tmp_path / "weights" / "a" / ".trial-00001-epoch-0002.safetensors.99"),
        put(tmp_path / "states" / "a" / "anything"),
    ]
    sweep(tmp_path, "a", live={7: running}, best=[best])
    assert all(path.exists() for path in wanted)
    assert not any(path.exists() for path in unwanted)


def test_a_run_without_files_has_nothing_to_sweep(tmp_path: Path) -> None:
    sweep(tmp_path, "a", live={}, best=[])
    assert list(tmp_path.iterdir()) == []


def play(folder: Path, events: Iterable[tuple[int, float]], *, num_running: int, keep_top: int, look_every: int) -> int:
    """Let random running trials end an epoch with random values, and check the files; returns the trials that ended.

    Args:
        folder: the run's folder.
        events: which of the running trials, and its value.
        num_running: trials at a time.
        keep_top: ended trials whose weights are kept.
        look_every: after how many events the files are looked at.
    """
    ledger = make_ledger(folder, names="a", num_trials=100_000, max_epochs=4, sampler="random")
    account, running = ledger.accounts["a"], []
    for number, (place, value) in enumerate(events):
        while len(running) < num_running:
            running.append(f"{number}-{len(running)}")
            ledger.start(running[-1])
        key = running[place]
        one = ledger.live[key]
        put(state_path(folder, "a", one.number))
        if one.best_epoch == 0 or value < one.best_value:
            put(weights_path(folder, "a", one.number, one.epochs + 1))
        if not ledger.report(key, epoch(one.epochs + 1, value)):
            running.remove(key)
        best = account.ranking[:keep_top]
        sweep(folder, "a", live=account.live, best=best)
        if number % look_every:
            continue
        weights = list((folder / "weights" / "a").iterdir())
        states = list((folder / "states" / "a").iterdir())
        assert len(states) <= len(account.live)
        assert len(weights) <= len(account.live) + keep_top
        assert all(weights_path(folder, "a", kept.number, kept.best_epoch) in weights for kept in best)
        live = [kept for kept in account.live.values() if kept.best_epoch]
        assert all(weights_path(folder, "a", kept.number, kept.best_epoch) in weights for kept in live)
    return len(account.ranking)


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3, 0.4])), min_size=20, max_size=60),
    st.integers(1, 3),
)
def test_there_are_never_more_files_than_running_trials_and_the_best_need(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, float]], keep_top: int
) -> None:
    play(tmp_path_factory.mktemp("run"), events, num_running=3, keep_top=keep_top, look_every=1)


def test_a_thousand_trials_leave_no_more_than_ten(tmp_path: Path) -> None:
    draw = random.Random(0)  # noqa: S311
    events = ((draw.randrange(10), draw.random()) for _ in range(2500))
    assert play(tmp_path, events, num_running=10, keep_top=2, look_every=7) > 1000
