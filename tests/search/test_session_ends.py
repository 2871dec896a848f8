"""How a session ends in the record: in order, refused, broken off or killed."""

from datetime import datetime
from pathlib import Path

import pytest
from rich.console import Console
from session_bench import Bench

from galaxy_models.cli import EndedBySignal
from galaxy_models.errors import GalaxyError
from search.errors import RunError, SearchFault
from search.live_file import LIVE, Live, save_live
from search.run_dir import RECORD
from search.session import Session, gone_if_refused


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("error", "code", "reason"),
    [
        (RunError("time budget:\n spent"), 2, "did not begin: time budget: spent"),
        (SearchFault("Ray did not start"), 1, "did not begin: Ray did not start"),
        (KeyboardInterrupt(), 130, "did not begin: interrupted"),
        (EndedBySignal(143), 143, "did not begin: interrupted"),
    ],
)
def test_a_session_that_did_not_begin_leaves_the_record_of_the_one_before(
    bench: Bench, error: BaseException, code: int, reason: str
) -> None:
    bench.begin().end(elapsed_s=10.0, reason="time budget", exit_code=0, notes=["One."])
    before = bench.record
    with pytest.raises(type(error), match=str(error) or None), bench.go_on():
        raise error
    after = bench.record
    first, last = after.pop("sessions")
    assert [first] == before.pop("sessions")
    assert after == before
    assert (last["exit_code"], last["reason"], last["elapsed_s"], last["journal_bytes"]) == (code, reason, 0.0, None)
    assert last["ended"]
    bench.go_on().end(elapsed_s=25.0, reason="", exit_code=0, notes=[])
    assert [one["elapsed_s"] for one in bench.record["sessions"]] == [10.0, 0.0, 15.0]


def leave_sign(bench: Bench, *, elapsed_s: float, before_s: float, later_s: float = 0.0) -> None:
    """What the driver of the latest session says of itself."""
    written = datetime.fromisoformat(bench.record["sessions"][-1]["started"]).timestamp() + later_s
    live = Live(
        written=written, ended=False, elapsed_s=elapsed_s, before_s=before_s, num_places=1, cpus_per_trial=1,
        gpus_per_trial=0.0, nodes=(), running=(),
    )  # fmt: skip
    save_live(bench.run_dir, live)


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (SystemExit(1), 1, "broke off: nobody reads its output any more"),  # what rich makes of a closed pipe
        (KeyError("x"), 1, "broke off: KeyError: 'x'"),
        (AssertionError(), 1, "broke off: AssertionError:"),
        (KeyboardInterrupt(), 130, "broke off: interrupted"),
        (EndedBySignal(143), 143, "broke off: interrupted"),
        (SearchFault("Ray is gone"), 1, "broke off: Ray is gone"),
    ],
)
def test_a_session_that_breaks_off_says_why_and_counts(
    bench: Bench, error: BaseException, code: int, words: str
) -> None:
    bench.begin().end(elapsed_s=10.0, reason="", exit_code=0, notes=[])
    session = bench.go_on()
    bench.describe(session)
    # The driver begins to count somewhat later than the session.
    leave_sign(bench, elapsed_s=17.0, before_s=11.0)
    with pytest.raises(type(error), match=str(error) or None), session:
        raise error
    last = bench.record["sessions"][-1]
    assert (last["exit_code"], last["elapsed_s"], last["reason"]) == (code, 7.0, words)
    assert last["ended"]


def test_a_first_session_that_breaks_off_is_told_to_the_storage(bench: Bench) -> None:
    bench.run_dir.mkdir()
    told: list[str] = []
    session = Session.begin(
        bench.run_dir, bench.options, bench.plan, Console(quiet=True), saved=lambda path: told.append(path.name)
    )
    bench.describe(session)
    told.clear()
    with pytest.raises(RunError, match="a bug in a space"), session:
        raise RunError("a bug in a space")
    assert told == [RECORD]


@pytest.mark.parametrize(
    ("reason", "words"),
    [("time budget", "time budget; broke off: OSError: no room"), ("", "broke off: OSError: no room")],
)
def test_what_breaks_off_after_the_end_is_in_the_exit_code(bench: Bench, reason: str, words: str) -> None:
    session = bench.begin()
    bench.describe(session)
    session.end(elapsed_s=7.0, reason=reason, exit_code=0, notes=[])
    with pytest.raises(OSError, match="no room"), session:
        raise OSError("no room")
    last = bench.record["sessions"][-1]
    assert (last["exit_code"], last["elapsed_s"], last["reason"]) == (1, 7.0, words)


def test_a_fault_that_is_told_after_the_end_changes_nothing(bench: Bench) -> None:
    session = bench.begin()
    session.end(elapsed_s=7.0, reason="", exit_code=1, notes=[])
    before = bench.record
    with pytest.raises(SearchFault, match="a final training failed"), session:
        raise SearchFault("a final training failed")
    assert bench.record == before


def test_a_session_that_was_killed_counts_up_to_its_last_sign_of_life(bench: Bench) -> None:
    bench.begin().end(elapsed_s=10.0, reason="", exit_code=0, notes=[])
    bench.go_on()
    leave_sign(bench, elapsed_s=40.0, before_s=12.0)
    session = bench.go_on()
    assert session.before_s == 40.0
    session.end(elapsed_s=45.0, reason="", exit_code=0, notes=[])
    assert [one["elapsed_s"] for one in bench.record["sessions"]] == [10.0, 30.0, 5.0]


def test_what_an_earlier_driver_said_or_nobody_can_read_counts_nothing(bench: Bench) -> None:
    bench.begin()
    leave_sign(bench, elapsed_s=40.0, before_s=10.0, later_s=-1.0)
    assert bench.go_on().before_s == 0.0
    (bench.run_dir / LIVE).write_text("{")
    assert bench.go_on().before_s == 0.0


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (RunError("no GPU"), False),
        # One can go on with it when the machine is better.
        (SearchFault("no Ray"), True),
    ],
)
def test_a_new_run_that_was_refused_leaves_no_folder_and_is_told_to_nobody(
    bench: Bench, error: GalaxyError, *, stays: bool
) -> None:
    told: list[Path] = []
    bench.run_dir.mkdir()
    with (
        pytest.raises(type(error), match=str(error)),
        gone_if_refused(bench.run_dir),
        Session.begin(bench.run_dir, bench.options, bench.plan, Console(quiet=True), saved=told.append),
    ):
        raise error
    assert bench.run_dir.exists() == stays
    assert [path.name for path in told] == (["a.py", RECORD] if stays else [])
    if stays:
        bench.go_on()


def test_a_folder_with_trials_is_never_removed(bench: Bench) -> None:
    bench.begin()
    with pytest.raises(RunError, match="a bug in a space"), gone_if_refused(bench.run_dir):
        raise RunError("a bug in a space")
    assert bench.record["name"] == "run"
