"""Ends that are no decision are written down, the folder stays small, and the search ends when it must."""

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.trial import TrialState
from two_spaces import epoch, make_ledger

from galaxy_models.errors import GalaxyError, MachineError
from search.files import state_path, weights_path
from search.recorder import MAX_FAULTS_IN_A_ROW, Recorder
from search.scheduler import LedgerScheduler
from search.study import load_studies


class Bench:
    """A recorder and a scheduler that are told of trials as Tune tells them: the scheduler first."""

    def __init__(self, folder: Path, *, keep_top: int = 1, **options: Any) -> None:
        self.folder = folder
        self.ledger = make_ledger(folder, **{"num_trials": 50, "scheduler": "none", "max_epochs": 3, **options})
        self.said: list[str] = []
        self.oom_kills = 5
        self.recorder = Recorder(
            self.ledger, folder, keep_top=keep_top, say=self.said.append, oom_kills=lambda: self.oom_kills
        )
        self.scheduler = LedgerScheduler(self.ledger)

    def begin(self, key: str) -> Any:
        entry = self.ledger.start(key)
        assert entry is not None
        trial = SimpleNamespace(trial_id=key, error_file=None, config={"micro_batch": None}, num_failures=9)
        self.recorder.on_trial_start(0, [], trial)  # type: ignore[arg-type]
        return trial

    def tell(self, trial: Any, **result: Any) -> None:
        if "epoch" in result and not result["diverged"]:
            self.scheduler.on_trial_result(None, trial, result)
        self.recorder.on_trial_result(0, [], trial, result)

    def run(self, key: str, *values: float) -> Any:
        """Start a trial and let it report its epochs, each of which writes state and weights first."""
        trial = self.begin(key)
        entry = self.recorder.entry(trial)
        for number, value in enumerate(values, 1):
            state = state_path(self.folder, entry.space, entry.number)
            for path in (weights_path(self.folder, entry.space, entry.number, number), state):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(b"x")
            self.tell(trial, **epoch(number, value), diverged=0.0, handover_s=0.1)
        return trial

    def kept(self, space: str = "a") -> tuple[set[tuple[int, int]], set[int]]:
        """Trial and epoch of every weights file, and trial of every state."""
        weights = [path.stem.split("-") for path in (self.folder / "weights" / space).iterdir()]
        states = [path.stem.split("-") for path in (self.folder / "states" / space).iterdir()]
        return {(int(one[1]), int(one[3])) for one in weights}, {int(one[1]) for one in states}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path, names="a")


def test_weights_are_kept_of_the_best_ended_trial_and_of_running_ones_from_their_best_epoch_on(bench: Bench) -> None:
    bench.run("0", 0.6, 0.3, 0.5)
    bench.run("1", 0.9, 0.8, 0.7)
    running = bench.run("2", 0.2, 0.1)
    assert bench.kept() == ({(0, 2), (2, 2)}, {2})
    bench.tell(running, epoch=3, diverged=1.0)
    assert bench.kept() == ({(0, 2)}, set())
    bench.run("3", 0.9, 0.9, 0.2)
    assert bench.kept() == ({(3, 3)}, set())
    assert bench.recorder.handovers_s == [0.1] * 11


def test_as_many_of_the_best_are_kept_as_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, names="a", keep_top=2)
    for key, value in (("0", 0.5), ("1", 0.3), ("2", 0.4), ("3", 0.9)):
        bench.run(key, value, 1.0, 1.0)
    assert bench.kept()[0] == {(1, 1), (2, 1)}


def test_what_a_running_trial_wrote_and_did_not_report_yet_is_left_alone_until_it_ends(bench: Bench) -> None:
    trial = bench.run("0", 0.5, 0.3)
    folder = bench.folder / "weights" / "a"
    for name in ("trial-00000-epoch-0003.safetensors", ".trial-00000-epoch-0003.safetensors.77"):
        (folder / name).write_bytes(b"newer")
    bench.recorder.close()
    assert len(list(folder.iterdir())) == 3
    bench.tell(trial, fault="RuntimeError: boom", fault_exit_code=None)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("how", ["on_trial_recover", "on_trial_error"])
def test_what_a_dead_worker_had_not_finished_writing_is_deleted_before_its_trial_goes_on(
    bench: Bench, how: str
) -> None:
    trial, other = bench.run("0", 0.5), bench.run("1", 0.6)
    trial.run_metadata = SimpleNamespace(num_failures=1)
    bench.oom_kills += 1  # So that it is put back, where Tune gives it up.
    before = bench.kept()
    names = (
        "states/a/.trial-00000.pt.77", "weights/a/.trial-00000-epoch-0002.safetensors.77",
        "states/a/.trial-00001.pt.78",
    )  # fmt: skip
    for name in names:
        (bench.folder / name).write_bytes(b"half")
    getattr(bench.recorder, how)(0, [], trial)
    # The other one's worker may be writing this moment.
    assert [(bench.folder / name).exists() for name in names] == [False, False, True]
    (bench.folder / names[2]).unlink()
    assert bench.kept() == before
    assert bench.recorder.entry(other).outcome is None


def test_what_the_workers_of_an_earlier_session_had_not_finished_writing_is_deleted_at_the_start(bench: Bench) -> None:
    bench.run("0", 0.5)
    before = bench.kept()
    folders = [bench.folder / place for place in ("states/a", "weights/a", "states/b")]
    folders[2].mkdir()
    for folder, name in zip(folders, ("1.pt.7", "0-epoch-0002.safetensors.7", "3.pt.123456"), strict=True):
        (folder / f".trial-0000{name}").write_bytes(b"half")
    bench.recorder.setup(stop=None, num_samples=-1, total_num_samples=-1)
    assert bench.kept() == before
    assert list(folders[2].iterdir()) == []


def test_the_end_of_a_session_leaves_running_trials_open_and_their_states_in_place(bench: Bench) -> None:
    bench.run("0", 0.3)
    bench.run("1", 0.9)
    bench.recorder.close()
    assert bench.kept() == ({(0, 1), (1, 1)}, {0, 1})
    trials = load_studies(bench.folder)["a"].get_trials()
    assert [one.state for one in trials] == [TrialState.RUNNING] * 2


def test_a_trial_that_diverged_has_failed(bench: Bench) -> None:
    bench.tell(bench.run("0", 0.5), epoch=2, diverged=1.0)
    (trial,) = load_studies(bench.folder)["a"].get_trials()
    assert trial.state == TrialState.FAIL
    assert trial.user_attrs["reason"] == "diverged in epoch 2: the loss was not finite"
    assert bench.recorder.fault is None


def test_a_disk_that_fails_is_the_searchs_fault_and_not_a_bug(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = bench.begin("0")

    def broken(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", "study.journal")

    monkeypatch.setattr(bench.ledger, "finish", broken)
    bench.tell(trial, fault="RuntimeError: boom", fault_exit_code=None)
    assert isinstance(bench.recorder.fault, MachineError)
    assert bench.recorder.fault.exit_code == 1
    assert str(bench.recorder.fault).startswith("study.journal: Input/output error: check the disk")


def test_a_fault_that_the_user_can_mend_ends_the_search_at_once_and_the_first_one_counts(bench: Bench) -> None:
    bench.tell(bench.begin("0"), fault="shard train-00000.arrow: altered", fault_exit_code=2)
    bench.tell(bench.begin("1"), fault="another", fault_exit_code=2)
    assert isinstance(bench.recorder.fault, GalaxyError)
    assert str(bench.recorder.fault) == "a, trial 0: shard train-00000.arrow: altered"
    assert bench.recorder.fault.exit_code == 2


def test_a_space_whose_trials_keep_failing_is_given_up_and_the_others_go_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    # Spaces take turns: a, b, a, b ...
    for number in range(MAX_FAULTS_IN_A_ROW - 1):
        bench.tell(bench.begin(f"a{number}"), fault="RuntimeError: boom", fault_exit_code=None)
        bench.run(f"b{number}", 0.5, 0.5, 0.5)
    bench.run("good", 0.5, 0.5, 0.5)
    bench.tell(bench.begin("other"), fault="RuntimeError: boom", fault_exit_code=None)
    started = []
    while not bench.ledger.given_up:
        trial = bench.begin(str(len(started)))
        entry = bench.recorder.entry(trial)
        started.append(entry.space)
        if entry.space == "b":
            bench.recorder.on_trial_result(0, [], trial, {"epoch": 1, "diverged": 1.0})
        elif started.count("a") < MAX_FAULTS_IN_A_ROW:
            bench.tell(trial, fault="RuntimeError: boom", fault_exit_code=None)
        else:
            bench.recorder.on_trial_error(0, [], trial)
    assert started.count("a") == MAX_FAULTS_IN_A_ROW
    assert list(bench.ledger.given_up) == ["a"]
    assert (
        "the worker process died: killed, or out of memory: the last 3 trials of this space"
        in (bench.ledger.given_up["a"])
    )
    assert bench.recorder.fault is None
    following = bench.ledger.start("next")
    assert following is not None
    assert following.space == "b"


def test_waiting_is_said_once(bench: Bench) -> None:
    trial = bench.begin("0")
    for _ in range(3):
        bench.tell(trial, waiting="the disk is full: waiting for room")
    assert bench.said == ["a trial 0: the disk is full: waiting for room"]


def test_waiting_is_said_again_when_a_trial_went_on_between(bench: Bench) -> None:
    trial = bench.begin("0")
    bench.tell(trial, waiting="the disk is full: waiting for room")
    bench.tell(trial, **epoch(1, 0.5), diverged=0.0)
    bench.tell(trial, waiting="the disk is full: waiting for room")
    assert len(bench.said) == 2


def test_a_worker_that_died_for_want_of_memory_goes_on_with_half_the_images(bench: Bench, tmp_path: Path) -> None:
    trial = bench.run("0", 0.5)
    size = bench.recorder.entry(trial).config["batch_size"]
    trial.error_file = str(tmp_path / "error.txt")
    trial.run_metadata = SimpleNamespace(num_failures=3)
    Path(trial.error_file).write_text("Failure # 1\nout of memory issue\nFailure # 2\nthe actor was killed\n")
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.config["micro_batch"] is None
    Path(trial.error_file).write_text("Failure # 1\nkilled\nFailure # 2\nkilled due to an out of memory issue\n")
    for expected in (size // 2, size // 4):
        bench.recorder.on_trial_recover(0, [], trial)
        assert trial.config["micro_batch"] == expected
    assert bench.recorder.restarts == 3
    # Of three deaths, two could be helped; later trials know from the start.
    assert trial.run_metadata.num_failures == 1
    assert bench.ledger.accounts["a"].micro_batch(None) == size // 4
    assert bench.said[0] == "a trial 0: its worker died; it goes on after epoch 1"
    memory = f"its worker died for want of memory: {size // 2} images at once from now on"
    assert bench.said[1] == f"a trial 0: {memory}; it goes on after epoch 1"


def test_half_of_the_images_is_half_of_those_that_the_worker_came_down_to(bench: Bench, tmp_path: Path) -> None:
    trial = bench.begin("0")
    size = bench.recorder.entry(trial).config["batch_size"]
    trial.config["micro_batch"] = 4 * size  # what was remembered of trials with larger batches
    trial.error_file, trial.run_metadata = str(tmp_path / "error.txt"), SimpleNamespace(num_failures=1)
    Path(trial.error_file).write_text("Failure # 1\nkilled due to an out of memory issue\n")
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.config["micro_batch"] == size // 2
    bench.tell(trial, **epoch(1, 0.5), micro_batch=size / 8, diverged=0.0)
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.config["micro_batch"] == size // 16


def test_a_worker_that_the_kernel_killed_for_want_of_memory_goes_on_with_half_the_images(bench: Bench) -> None:
    trial = bench.begin("0")
    size = bench.recorder.entry(trial).config["batch_size"]
    trial.run_metadata = SimpleNamespace(num_failures=1)
    # Somebody killed it, in whose time the kernel killed nobody.
    bench.recorder.on_trial_recover(0, [], trial)
    assert (trial.config["micro_batch"], trial.run_metadata.num_failures) == (None, 1)
    bench.oom_kills += 1
    bench.recorder.on_trial_recover(0, [], trial)
    assert (trial.config["micro_batch"], trial.run_metadata.num_failures) == (size // 2, 0)
    assert bench.said[1].startswith(f"a trial 0: its worker died for want of memory: {size // 2} images at once")
    # The kernel killed another process, before the trial's latest epoch; or killed, when the worker was out of reach.
    bench.oom_kills += 1
    bench.tell(trial, **epoch(1, 0.5), diverged=0.0)
    bench.recorder.on_trial_recover(0, [], trial)
    bench.oom_kills += 1
    bench.recorder.lose(trial, "no sign of life")
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.config["micro_batch"] == size // 2


def test_a_trial_whose_restarts_are_spent_goes_on_as_long_as_its_images_can_be_halved(bench: Bench) -> None:
    size = bench.recorder.entry(bench.begin("0")).config["batch_size"]
    entry, halvings = bench.recorder.entry(SimpleNamespace(trial_id="0")), 0  # type: ignore[arg-type]
    while entry.outcome is None:
        if halvings:
            assert bench.ledger.start(str(halvings)) is entry
        config = {"micro_batch": bench.ledger.accounts["a"].micro_batch(None)}
        trial: Any = SimpleNamespace(trial_id=str(halvings), error_file=None, config=config, num_failures=1)
        trial.run_metadata = SimpleNamespace(num_failures=0)
        bench.recorder.on_trial_start(0, [], trial)
        bench.oom_kills += 1
        bench.recorder.on_trial_error(0, [], trial)
        halvings += 1
    assert 2 ** (halvings - 1) == size
    assert bench.said == ["a trial 0: its worker died for want of memory; it goes on after epoch 0"] * (halvings - 1)


NODE_DIED = "Failure # 1\nThe actor died because its node has died. Node Id: 5e. Reason: unexpected termination\n"


def test_nodes_that_are_lost_are_no_restarts_as_long_as_the_trial_gets_on(tmp_path: Path) -> None:
    bench = Bench(tmp_path, names="a", max_epochs=9)
    trial = bench.run("0", 0.5)
    trial.error_file = str(tmp_path / "error.txt")
    trial.run_metadata = SimpleNamespace(num_failures=5)
    Path(trial.error_file).write_text(NODE_DIED)
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == 4
    # Once more without an epoch between: it may be the trial that ends its nodes.
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == 4
    bench.tell(trial, **epoch(2, 0.5), diverged=0.0)
    Path(trial.error_file).write_text("Failure # 3\nThe actor is dead because it was killed by `ray.kill`.\n")
    bench.recorder.lose(trial, "no sign of life")
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == 3
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == 3
    # One whose end was announced was not counted by Tune.
    bench.tell(trial, **epoch(3, 0.5), diverged=0.0)
    Path(trial.error_file).write_text(f"{NODE_DIED}\tthe actor's node was preempted: spot\n")
    bench.recorder.on_trial_recover(0, [], trial)
    assert trial.run_metadata.num_failures == 3
    assert bench.said == [
        "a trial 0: its worker died with its node; it goes on after epoch 1",
        "a trial 0: its worker died with its node; it goes on after epoch 1",
        "a trial 0: no sign of life; it goes on after epoch 2",
        "a trial 0: its worker died; it goes on after epoch 2",
        "a trial 0: its worker died with its node; it goes on after epoch 3",
    ]
    assert bench.recorder.restarts == 5


def test_a_trial_whose_restarts_are_spent_goes_on_after_the_loss_of_a_node_but_not_of_two_in_one_epoch(
    bench: Bench, tmp_path: Path
) -> None:
    first = bench.run("0", 0.5)
    for key in ("0", "1"):
        trial = first if key == "0" else bench.begin(key)
        trial.error_file, trial.num_failures = str(tmp_path / "error.txt"), 1
        Path(trial.error_file).write_text(NODE_DIED)
        bench.recorder.on_trial_error(0, [], trial)
    entry = bench.recorder.entry(first)
    assert bench.recorder.entry(trial) is entry
    assert bench.said == ["a trial 0: its worker died with its node; it goes on after epoch 1"]
    assert entry.outcome == "failed"


def test_a_lost_node_gives_no_restarts_back(bench: Bench, tmp_path: Path) -> None:
    first = bench.run("0", 0.5)
    first.error_file, first.num_failures = str(tmp_path / "error.txt"), 10
    Path(first.error_file).write_text(NODE_DIED)
    bench.recorder.on_trial_error(0, [], first)
    # A new one of Tune's, which has counted nothing yet.
    again = SimpleNamespace(trial_id="1", run_metadata=SimpleNamespace(num_failures=0))
    assert bench.ledger.start("1") is bench.recorder.entry(first)
    bench.recorder.on_trial_start(0, [], again)  # type: ignore[arg-type]
    assert again.run_metadata.num_failures == 9


def test_a_trial_whose_worker_died_before_it_ran_is_started_again(tmp_path: Path) -> None:
    bench, confirmed = Bench(tmp_path), []
    bench.recorder = Recorder(
        bench.ledger, tmp_path, keep_top=1, say=bench.said.append, max_restarts=2,
        confirm_ray=lambda: confirmed.append(1),
    )  # fmt: skip
    first = None
    for attempt in range(3):
        trial = bench.begin(str(attempt))
        entry = bench.recorder.entry(trial)
        first = first or entry
        # The very same trial, not another.
        assert entry is first
        trial.num_failures = 1
        bench.recorder.on_trial_error(0, [], trial)
        assert len(confirmed) == attempt + 1
    assert entry.outcome == "failed"
    assert bench.said == ["a trial 0: its worker died at the start; it starts again"] * 2
    following = bench.ledger.start("next")
    assert following is not None
    assert following is not first
