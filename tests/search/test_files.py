"""The folder of a run stays small: its bound, whatever happens in a search."""

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


@settings(max_examples=10, deadline=None, derandomize=True, phases=[Phase.generate])
@given(
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0.1, 0.2, 0.3, 0.4])), min_size=20, max_size=60),
    st.integers(1, 3),
)
def test_there_are_never_more_files_than_running_trials_and_the_best_need(
    tmp_path_factory: pytest.TempPathFactory, events: list[tuple[int, float]], keep_top: int
) -> None:
    folder = tmp_path_factory.mktemp("run")
    ledger = make_ledger(folder, names="a", num_trials=100, max_epochs=4, sampler="random")
    account, running = ledger.accounts["a"], []
    for number, (place, value) in enumerate(events):
        while len(running) < 3:
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
        weights = list((folder / "weights" / "a").iterdir())
        states = list((folder / "states" / "a").iterdir())
        assert len(states) <= len(account.live)
        assert len(weights) <= len(account.live) + keep_top
        assert all(weights_path(folder, "a", kept.number, kept.best_epoch) in weights for kept in best)
        live = [kept for kept in account.live.values() if kept.best_epoch]
        assert all(weights_path(folder, "a", kept.number, kept.best_epoch) in weights for kept in live)
