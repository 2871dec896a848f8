"""All retrainings of a run, on a Ray of its own."""

import errno
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from shapes_survey import make_shapes, small_config

from galaxy_models.config import TrainConfig
from search import attempts, final
from search.cluster import local_ray
from search.final import best_configs, plan_finals, retrain_finalists
from search.finalist import FinalJob, FinalSetting
from search.options import Places
from search.pulse import Pulse
from search.results import FinalRun, load_results
from search.shards import Shards


@pytest.fixture(scope="module")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_shapes(tmp_path_factory.mktemp("final") / "shapes", sizes=(60, 20, 20))


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A Ray of this machine; what it says when it starts is its own affair."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONWARNINGS", "ignore")
        with local_ray("run the tests again"):
            yield


def _run(
    run_dir: Path,
    data: Path,
    jobs: list[FinalJob],
    *,
    received: list[int],
    stop_after: int | None = None,
    say: Callable[[str], None] = lambda words: None,
    **limits: float,
) -> tuple[list[FinalRun], list[FinalRun]]:
    """The results, and what was told of meanwhile."""
    told: list[FinalRun] = []

    def on_done(result: FinalRun) -> None:
        told.append(result)
        if len(told) == stop_after:
            received.append(15)

    setting = FinalSetting(
        run_dir=run_dir,
        shards=Shards.at(data),
        threads=1,
        device="cpu",
        weights_dir=None,
        metric="nll",
        direction="min",
        **limits,
    )
    places = Places(1, 0.0, 1)
    results = retrain_finalists(jobs, setting=setting, places=places, received=received, on_done=on_done, say=say)
    return results, told


def _jobs(num_seeds: int, **changes: object) -> list[FinalJob]:
    config = small_config(**{"epochs": 2, "precision": "float32", **changes})
    return plan_finals({"cnn": [(5, config)]}, num_seeds=num_seeds, seed=3)


@pytest.mark.usefixtures("cluster")
def test_what_is_done_is_not_done_again(shapes: Path, tmp_path: Path) -> None:
    first, told = _run(tmp_path, shapes, _jobs(2), received=[])
    assert [result.seed_index for result in first] == [0, 1]
    assert sorted(result.seed_index for result in told) == [0, 1]
    assert first[0].metrics["test"]["nll"] != first[1].metrics["test"]["nll"]
    written = [result.folder(tmp_path) / "result.json" for result in first]
    before = [path.stat().st_mtime_ns for path in written]
    again, told = _run(tmp_path, shapes, _jobs(3), received=[])
    assert [path.stat().st_mtime_ns for path in written] == before
    assert [result.seed_index for result in told] == [0, 1, 2]
    assert [result.metrics for result in again[:2]] == [result.metrics for result in first]
    # Another configuration takes the place of the old, whose results are not to be found any more.
    _run(tmp_path, shapes, _jobs(2, learning_rate=0.02), received=[])
    assert [result.config["learning_rate"] for result in load_results(tmp_path)] == [0.02, 0.02]
    # Fewer seeds of the same configuration: those that are there stay.
    _run(tmp_path, shapes, _jobs(1, learning_rate=0.02), received=[])
    assert [result.seed_index for result in load_results(tmp_path)] == [0, 1]


@pytest.mark.usefixtures("cluster")
def test_one_failure_takes_nothing_from_the_others(shapes: Path, tmp_path: Path) -> None:
    broken = TrainConfig(backbone="resnet50", weights="none.safetensors", epochs=1)
    jobs = plan_finals({"resnet50": [(1, broken)], "cnn": [(5, small_config(epochs=1))]}, num_seeds=1, seed=3)
    results, _ = _run(tmp_path, shapes, jobs, received=[])
    assert [(result.backbone, bool(result.failure)) for result in results] == [("resnet50", True), ("cnn", False)]
    assert results[1].metrics["test"]["accuracy"] > 0


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("num_deaths", [2, 3])
def test_dead_worker_is_replaced_twice(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_deaths: int
) -> None:
    log = tmp_path / "attempts"

    def dying(job: FinalJob, setting: FinalSetting, worker: str) -> FinalRun:
        with log.open("a") as file:
            file.write("x")
        if len(log.read_text()) <= num_deaths:
            os._exit(1)
        return job.result(epochs=1)

    monkeypatch.setattr(attempts, "attempt", dying)
    (result,), _ = _run(tmp_path, shapes, _jobs(1), received=[])
    assert len(log.read_text()) == 3
    if num_deaths == 2:
        assert (result.failure, result.epochs) == ("", 1)
    else:
        assert result.failure.startswith("its process died 3 times: ")
        assert load_results(tmp_path)[0].failure == result.failure


@pytest.mark.usefixtures("cluster")
def test_a_process_that_the_kernel_killed_for_want_of_memory_begins_with_half_the_images(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "attempts"

    def too_large(job: FinalJob, setting: FinalSetting, worker: str) -> FinalRun:
        with log.open("a") as file:
            file.write(f"{job.micro_batch}\n")
        if job.micro_batch is None or job.micro_batch > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return job.result(epochs=1)

    monkeypatch.setattr(attempts, "attempt", too_large)
    # Each death is the kernel's.
    monkeypatch.setattr(final, "count_oom_kills", lambda: len(log.read_text().split()) if log.exists() else 0)
    (result,), _ = _run(tmp_path, shapes, _jobs(1, batch_size=32), received=[])
    assert (result.failure, result.epochs) == ("", 1)
    assert log.read_text().split() == ["None", "16", "8", "4", "2"]


@pytest.mark.usefixtures("cluster")
def test_a_worker_that_falls_silent_is_replaced(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "attempts"

    def stops_at_first(job: FinalJob, setting: FinalSetting, worker: str) -> FinalRun:
        with Pulse(worker, setting.silence_s).working():
            # Longer than the silence that is allowed: it works, and says so.
            time.sleep(3)
            with log.open("a") as file:
                file.write("x")
            if len(log.read_text()) == 1:
                os.kill(os.getpid(), signal.SIGSTOP)
        return job.result(epochs=1)

    monkeypatch.setattr(attempts, "attempt", stops_at_first)
    (result,), _ = _run(tmp_path, shapes, _jobs(1), received=[], silence_s=2)
    assert (result.failure, result.epochs) == ("", 1)
    assert log.read_text() == "xx"


@pytest.mark.usefixtures("cluster")
def test_a_training_that_hangs_is_ended_and_has_failed(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    retrained, mended = attempts.attempt, tmp_path / "mended"

    def hangs(job: FinalJob, setting: FinalSetting, worker: str) -> FinalRun:
        from galaxy_models.training.loop import Trainer

        run_epoch = Trainer.run_epoch

        def hanging_epoch(self: Trainer) -> dict[str, float]:
            if not mended.exists():
                time.sleep(60)
            return run_epoch(self)

        Trainer.run_epoch = hanging_epoch  # type: ignore[method-assign]
        return retrained(job, setting, worker)

    monkeypatch.setattr(attempts, "attempt", hangs)
    (result,), _ = _run(tmp_path, shapes, _jobs(1), received=[], timeout_s=2)
    where = tmp_path / "errors" / "final-cnn-0-0-hung.txt"
    assert result.failure == f"no epoch within 2 s (--trial-timeout): where it hung is in {where}"
    assert "hanging_epoch" in where.read_text()
    assert load_results(tmp_path)[0].failure == result.failure
    # In another session it gets another chance.
    mended.touch()
    (result,), _ = _run(tmp_path, shapes, _jobs(1), received=[], timeout_s=50)
    assert (result.failure, result.epochs) == ("", 2)


@pytest.mark.usefixtures("cluster")
def test_a_training_that_waits_for_room_says_so(shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    retrained, room, said = attempts.attempt, tmp_path / "room", []

    def full(job: FinalJob, setting: FinalSetting, worker: str) -> FinalRun:
        from galaxy_models.training.loop import Trainer

        save_weights = Trainer.save_weights

        def save(self: Trainer, path: Path) -> None:
            if not room.exists():
                raise OSError(errno.ENOSPC, "No space left on device", str(path))
            save_weights(self, path)

        Trainer.save_weights = save  # type: ignore[method-assign]
        return retrained(job, setting, worker)

    def say(words: str) -> None:
        said.append(words)
        room.touch()

    monkeypatch.setattr(attempts, "attempt", full)
    (result,), _ = _run(tmp_path, shapes, _jobs(1), received=[], say=say, silence_s=12)
    assert (result.failure, result.epochs) == ("", 2)
    path = tmp_path / "final" / "cnn" / "config-0-seed-0" / "weights.safetensors"
    assert said == [f"cnn trial 5, seed 1: {path}: the disk is full: waiting for room"]


@pytest.mark.usefixtures("cluster")
def test_signal_ends_what_runs_and_keeps_what_is_done(
    shapes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pids = tmp_path / "pids"
    pids.mkdir()

    def first_is_quick(job: FinalJob, setting: FinalSetting, worker: str) -> FinalRun:
        (pids / str(os.getpid())).touch()
        if job.seed_index:
            time.sleep(600)
        return job.result(epochs=1)

    monkeypatch.setattr(attempts, "attempt", first_is_quick)
    start = time.monotonic()
    results, _ = _run(tmp_path, shapes, _jobs(9), received=[], stop_after=1)
    assert [result.seed_index for result in results] == [0]
    assert time.monotonic() - start < 60
    deadline = time.monotonic() + 30
    sleeping = [path.name for path in pids.iterdir()]
    while sum(Path(f"/proc/{pid}").exists() for pid in sleeping) == len(sleeping) > 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.usefixtures("cluster")
def test_signal_beforehand_starts_nothing(shapes: Path, tmp_path: Path) -> None:
    assert _run(tmp_path, shapes, _jobs(2), received=[2]) == ([], [])


def test_most_wanted_retrainings_come_first_with_seeds_of_their_own() -> None:
    config = small_config()
    jobs = plan_finals({"a": [(4, config), (2, config)], "b": [(0, config)]}, num_seeds=2, seed=1)
    order = [(job.backbone, job.trial, job.rank, job.seed_index) for job in jobs]
    assert order == [("a", 4, 0, 0), ("b", 0, 0, 0), ("a", 4, 0, 1), ("b", 0, 0, 1), ("a", 2, 1, 0), ("a", 2, 1, 1)]
    assert len({job.config.seed for job in jobs}) == 6
    again = plan_finals({"b": [(0, config)]}, num_seeds=1, seed=1)
    assert again[0].config.seed == jobs[1].config.seed
    assert plan_finals({"b": [(0, config)]}, num_seeds=1, seed=2)[0].config.seed != jobs[1].config.seed


def _study(direction: str, runs: list[tuple[TrainConfig, list[float], str]]) -> optuna.Study:
    """A study of trials with these configurations, values of their epochs, and states."""
    study = optuna.create_study(direction=direction)
    for config, values, state in runs:
        trial = study.ask()
        trial.set_user_attr("config", config.to_dict())
        for epoch, value in enumerate(values, start=1):
            trial.report(value, step=epoch)
        if state != "RUNNING":
            study.tell(trial, values[0] if state == "COMPLETE" else None, state=optuna.trial.TrialState[state])
    return study


@pytest.mark.parametrize(("direction", "expected"), [("minimize", [1, 3, 0]), ("maximize", [0, 3, 1])])
def test_best_trials_are_by_their_best_epoch(direction: str, expected: list[int]) -> None:
    runs = [([0.7, 0.9], "COMPLETE"), ([0.3, 0.2], "PRUNED"), ([0.1, 1.5], "FAIL"), ([0.5], "RUNNING")]
    configs = [small_config(batch_size=8 + number) for number in range(4)]
    study = _study(direction, [(config, *run) for config, run in zip(configs, runs, strict=True)])
    found = best_configs(study, 5)
    assert found == [(number, configs[number]) for number in expected]
    assert best_configs(study, 1) == found[:1]


def test_trials_of_one_configuration_are_one() -> None:
    """Repeated with another seed, run again to the full length, and to a greater length."""
    one, other = small_config(batch_size=8), small_config(batch_size=16)
    runs = [
        (replace(one, seed=1), [0.9, 0.3], "PRUNED"),
        (replace(one, seed=2), [0.9, 0.3], "PRUNED"),
        (other, [0.5], "COMPLETE"),
        (replace(one, seed=1), [0.9, 0.3, 0.2], "COMPLETE"),
        (replace(other, epochs=2 * other.epochs), [0.5, 0.6], "COMPLETE"),
    ]
    assert best_configs(_study("minimize", runs), 5) == [(3, replace(one, seed=1)), (2, other)]
