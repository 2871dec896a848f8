"""The final evaluation: each backbone's best configurations are trained again from scratch with several seeds.

One training run says little of a configuration: its trial was the luckiest of many, and another seed gives another
network. Test galaxies are seen here, and in `search.evaluate`, only.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from ray.exceptions import OutOfMemoryError

from galaxy_models.config import TrainConfig
from galaxy_models.errors import GalaxyError
from galaxy_models.seeds import derive_seed
from search.attempts import Attempts
from search.finalist import FinalJob, FinalSetting, is_done
from search.oom import count_oom_kills
from search.options import Places
from search.results import PREDICTIONS_NAME, RESULT_NAME, WEIGHTS_NAME, FinalRun, load_result
from search.retrain import fail
from search.run_files import RunFiles
from search.storage import Storage

if TYPE_CHECKING:
    import optuna

# Seeds of each configuration. Fewer than three tell nothing of the spread.
NUM_SEEDS = 3
# Times that a retraining whose process died is taken up again.
MAX_RETRIES = 2


def best_configs(study: "optuna.Study", num_configs: int) -> list[tuple[int, TrainConfig]]:
    """A study's best configurations by the best epoch of each; stopped and unfinished trials count, failed ones do not.

    Trials of one configuration that differ in seed or length only are one: those that were run again to the full
    length, and repetitions, for which a recorded result was taken.

    Args:
        study: its trials.
        num_configs: how many to return at most.

    Returns:
        Number of its best trial and configuration of each, the best first; of equals, the earlier first.
    """
    import optuna

    sign = 1.0 if study.direction == optuna.study.StudyDirection.MINIMIZE else -1.0
    states = optuna.trial.TrialState
    found = []
    for trial in study.get_trials(deepcopy=False, states=(states.COMPLETE, states.PRUNED, states.RUNNING)):
        values = [sign * value for value in trial.intermediate_values.values() if math.isfinite(value)]
        if values and "config" in trial.user_attrs:
            found.append((min(values), trial.number, TrainConfig.from_dict(trial.user_attrs["config"])))
    chosen: dict[TrainConfig, tuple[int, TrainConfig]] = {}
    for _, number, config in sorted(found, key=lambda one: one[:2]):
        chosen.setdefault(replace(config, seed=0, epochs=1), (number, config))
    return list(chosen.values())[:num_configs]


def plan_finals(
    finalists: Mapping[str, Sequence[tuple[int, TrainConfig]]], *, num_seeds: int, seed: int
) -> list[FinalJob]:
    """Plan the retrainings, in an order in which those that are worth most come first if time runs out.

    Every backbone's best configuration gets its first seed, then its second, and so on; then come the second-best.

    Args:
        finalists: for each backbone's name its best trials, the best first.
        num_seeds: retrainings of each.
        seed: the run's.
    """
    jobs = [
        FinalJob(
            backbone=backbone,
            trial=trial,
            rank=rank,
            seed_index=index,
            config=replace(config, seed=derive_seed(seed, "final", backbone, rank, index)),
        )
        for backbone, trials in finalists.items()
        for rank, (trial, config) in enumerate(trials)
        for index in range(num_seeds)
    ]
    return sorted(jobs, key=lambda job: (job.rank, job.seed_index))


def retrain_finalists(
    jobs: Sequence[FinalJob],
    *,
    setting: FinalSetting,
    places: Places,
    received: Sequence[int],
    on_done: Callable[[FinalRun], None],
    say: Callable[[str], None] = lambda words: None,
) -> list[FinalRun]:
    """Retrain and evaluate, as many at once as fit, on the Ray that is running.

    What an earlier call finished is taken as it is, if configuration, seed and survey are the same; what it left
    unfinished goes on from its last whole epoch. Failures are tried again.

    Args:
        jobs: what to do, in order.
        setting: on what, where.
        places: what is reserved for each.
        received: signals that came so far; the first ends what runs, at once.
        on_done: told of each result as it comes, those of an earlier call first.
        say: prints a line for the user.

    Returns:
        The results there are, in the order of `jobs`; those that have failed say why.
    """
    files = RunFiles(setting.run_dir, Storage(setting.storage) if setting.storage else None, tell=_once(say))
    results: dict[FinalJob, FinalRun] = {}
    files.until_done(lambda: _remove_others(jobs, setting, files), received=received)
    for job in jobs:
        folder = setting.folder(job)
        if is_done(job, setting):
            results[job] = load_result(folder / RESULT_NAME)
            on_done(results[job])
            continue
        # Of another configuration or survey, or a failure: no report must take it for this job's.
        for name in (RESULT_NAME, PREDICTIONS_NAME):
            files.until_done(partial(files.remove, folder / name), received=received)
    attempts = Attempts(setting, places)
    fates = _Fates(jobs, oom_kills=count_oom_kills if setting.software is None else lambda: 0)
    for job in (one for one in jobs if one not in results):
        attempts.begin(job, micro_batch=job.micro_batch)
    while len(attempts) and not received:
        for job, outcome in attempts.ended():
            result = fates.judge(outcome, job, setting)
            if result is None:
                attempts.begin(job, micro_batch=fates.sizes[job])
            else:
                for name in (RESULT_NAME, PREDICTIONS_NAME, WEIGHTS_NAME):
                    files.until_done(partial(files.fetch, setting.folder(job) / name), received=received)
                results[job] = result
                on_done(result)
        for job, words in attempts.waiting():
            say(f"{job.backbone} trial {job.trial}, seed {job.seed_index + 1}: {words}")
    attempts.cancel()
    return [results[job] for job in jobs if job in results]


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Passes on what is said again and again, such as what is waited for, when it begins."""
    before = ""

    def tell(words: str) -> None:
        nonlocal before
        if words and not before:
            say(words)
        before = words

    return tell


def _remove_others(jobs: Sequence[FinalJob], setting: FinalSetting, files: RunFiles) -> None:
    """Remove what an earlier session retrained of other configurations; further seeds of the same ones stay."""
    folders = {setting.folder(job) for job in jobs}
    configs = {(job.backbone, job.rank, replace(job.config, seed=0)) for job in jobs}
    for backbone in {job.backbone for job in jobs}:
        for folder in setting.folder_of(backbone).glob("config-*-seed-*"):
            if folder in folders:
                continue
            try:
                found = load_result(folder / RESULT_NAME)
                key = found.backbone, found.rank, replace(TrainConfig.from_dict(found.config), seed=0)
            except (OSError, ValueError, TypeError, KeyError, AttributeError, GalaxyError):
                key = None
            if key not in configs:
                files.remove_folder(folder)


class _Fates:
    """What has happened to each retraining so far.

    Args:
        jobs: all of them.
        oom_kills: counts the processes that the workers' kernel has killed for want of memory.

    Attributes:
        sizes: how many images at once each may begin with.
    """

    def __init__(self, jobs: Sequence[FinalJob], *, oom_kills: Callable[[], int]) -> None:
        self.sizes = {job: min(job.micro_batch or job.config.batch_size, job.config.batch_size) for job in jobs}
        self._deaths: Counter[FinalJob] = Counter()
        self._oom_kills = oom_kills
        self._known_kills = oom_kills()

    def judge(self, outcome: FinalRun | Exception, job: FinalJob, setting: FinalSetting) -> FinalRun | None:
        """The result of a retraining that has ended; None if its process died and it is to be tried again.

        One that was ended for want of memory is tried again with half the images at once, as often as they can be
        halved.
        """
        if not isinstance(outcome, Exception):
            return outcome
        words = " ".join(str(outcome).split())
        if self._ran_out_of_memory(outcome):
            if self.sizes[job] > 1:
                self.sizes[job] //= 2
                return None
            return fail(job, setting, f"no memory for a single image: {words:.300}")
        self._deaths[job] += 1
        if self._deaths[job] <= MAX_RETRIES:
            return None
        return fail(job, setting, f"its process died {self._deaths[job]} times: {type(outcome).__name__}: {words:.300}")

    def _ran_out_of_memory(self, outcome: Exception) -> bool:
        """Whether Ray's memory monitor ended a process, or the kernel one of those that are running."""
        if isinstance(outcome, OutOfMemoryError):
            return True
        # One kill of the kernel explains one death.
        grown = not isinstance(outcome, TimeoutError) and self._oom_kills() > self._known_kills
        self._known_kills += grown
        return grown
