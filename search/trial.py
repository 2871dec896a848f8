"""A trial on a worker: Tune's Trainable around the training loop.

One worker process runs many trials. It keeps torch, the memory-mapped shards and its threads between them:
`reset_config` only makes a new network and optimiser. After every epoch the trial's state is on disk before the
result is told, so that a trial whose worker, driver or machine was killed goes on from there.
"""

import contextlib
import math
import platform
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import ray

from galaxy_models.cli import machine_fault
from galaxy_models.config import TrainConfig
from galaxy_models.errors import GalaxyError
from search.entry import better
from search.errors import PeerDiedError, StorageError, TrialHungError
from search.files import error_path, hang_path, state_path, weights_path
from search.lean import LeanTrainable, unpack
from search.limit import limited
from search.nodes import check_run_dir, check_software, this_software
from search.peers import Peers
from search.pulse import Pulse
from search.run_files import RunFiles
from search.shards import Shards

if TYPE_CHECKING:
    from galaxy_models.training.loop import Trainer
    from galaxy_models.training.runtime import Runtime
    from galaxy_models.training.survey import SurveyData

# How long a worker with a full disk waits before it tells so again and tries once more.
WAIT_S = 2.0
# From how much of the machine's memory in use on a worker keeps nothing that it has freed.
_FULL_PERCENT = 75.0


class GalaxyTrial(LeanTrainable):
    """Trains one configuration, an epoch a step.

    Its configuration, which comes packed (see `lean`), has `train` (a TrainConfig as a dictionary), `space`, `number`,
    `known_epochs` (those the study has), `parent` and `branched_after` (the trial from whose state it begins, and that
    trial's epochs then), `micro_batch`, `value_to_beat`, and for all trials alike `shards` (see `Shards`), `run_dir`
    and `storage` (see `RunFiles.of_worker`), `software` (the driver's on a cluster, see `this_software`), `threads`,
    `processes` (that train each trial together; this is the first), `device`, `gpu_share`, `weights_dir`, `metric`,
    `direction`, `timeout_s` and `silence_s` (see `Pulse`).

    A result has the loop's metrics and `objective`, `done`, and after a trial's first epoch `handover_s`: the time
    from the end of the worker's previous trial to this one's first optimiser step. Where something went wrong the
    result says so in `fault`, and in `fault_exit_code` if the user can mend it; the worker lives on. A full disk is a
    result that has `waiting` and nothing measured; the next step tries again. Where another process of the trial is
    gone, the step raises, for which Tune starts all of them anew.
    """

    _trainer: "Trainer | None"

    def setup(self, config: dict[str, Any]) -> None:
        """Prepare a fresh worker for its first trial."""
        self.config = config = unpack(config)
        worker = ray.get_runtime_context().get_actor_id() if config["silence_s"] is not None else ""
        self._pulse = Pulse(worker, config["silence_s"])
        self._files = RunFiles.of_worker(Path(config["run_dir"]), config["storage"], confirm=self._pulse.confirm)
        self._runtime: Runtime | None = None
        self._survey: SurveyData | None = None
        self._peers = Peers(config["processes"], Shards(**config["shards"])) if config["processes"] > 1 else None
        self._idle_since: float | None = None
        self._begin()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Prepare this process for its next trial."""
        from galaxy_models.training.runtime import give_back_memory

        # Freed before the next is made: a GPU need not hold two networks.
        self._trainer = None
        self.config = unpack(new_config)
        self._begin()
        if psutil.virtual_memory().percent > _FULL_PERCENT:
            # What a large network took and this one does not need; it takes a tenth of a second to have it again.
            give_back_memory()
        return True

    def cleanup(self) -> None:
        """Leave nothing behind on this machine."""
        self._pulse.close()
        self._files.clear()

    def _begin(self) -> None:
        self._trainer = None
        self._files.clear()
        self._handover_s: float | None = None
        self._history: list[dict[str, float]] = []
        self._untold: list[dict[str, float]] = []
        self._unsaved = False

    def step(self) -> dict[str, Any]:
        """Train and validate one epoch."""
        with self._pulse.working():
            return self._step()

    def _step(self) -> dict[str, Any]:
        try:
            if self._survey is None:
                # Fetched once for all workers of the machine, which may take longer than an epoch.
                Shards(**self.config["shards"]).local()
            with limited(self._path_on_node(hang_path), self.config["timeout_s"]):
                result = self._epoch()
        except PeerDiedError:
            raise
        except Exception as error:
            if words := self._files.why_wait(error):
                return self._wait(words)
            result = self._fault(error)
        self._idle_since = time.monotonic()
        return result

    def _path(self, path_of: Callable[[Path, str, int], Path]) -> Path:
        return path_of(self._files.root, self.config["space"], self.config["number"])

    def _path_on_node(self, path_of: Callable[[Path, str, int], Path]) -> Path:
        return path_of(self._files.node_root, self.config["space"], self.config["number"])

    def _wait(self, words: str) -> dict[str, Any]:
        time.sleep(WAIT_S)
        return {"objective": math.nan, "done": False, "waiting": words}

    def _fault(self, error: Exception) -> dict[str, Any]:
        self._trainer = None
        error = machine_fault(error, self.config["run_dir"]) or error
        words = " ".join(str(error).split())
        if isinstance(error, GalaxyError):
            code = {} if _is_the_trials_own(error) else {"fault_exit_code": error.exit_code}
            return {"objective": math.nan, "done": True, "fault": words, **code}
        log = self._path(error_path)
        with contextlib.suppress(OSError, StorageError):
            log.parent.mkdir(parents=True, exist_ok=True)
            log.write_text(traceback.format_exc(), encoding="utf-8")
            self._files.keep(log)
        return {"objective": math.nan, "done": True, "fault": f"{type(error).__name__}: {words:.300}"}

    def _epoch(self) -> dict[str, Any]:
        if self._trainer is None:
            self._trainer = self._make_trainer()
        if self._untold:
            return self._result(self._untold.pop(0))
        if not self._unsaved:
            metrics = self._trainer.run_epoch()
            if metrics["diverged"]:
                return self._result(metrics)
            self._history.append(metrics)
            self._unsaved = True
        self._save(self._trainer)
        self._unsaved = False
        return self._result(self._history[-1])

    def _result(self, metrics: dict[str, float]) -> dict[str, Any]:
        result: dict[str, Any] = dict(metrics)
        result["objective"] = metrics[self._key]
        result["done"] = bool(metrics["diverged"])
        if self._handover_s is not None:
            result["handover_s"], self._handover_s = self._handover_s, None
        return result

    @property
    def _key(self) -> str:
        return f"val_{self.config['metric']}"

    def _make_trainer(self) -> "Trainer":
        from galaxy_models.training.loop import Trainer
        from galaxy_models.training.runtime import Runtime, pass_over_objects
        from galaxy_models.training.survey import SurveyData

        config = self.config
        if self._runtime is None or self._survey is None:
            weights_dir = Path(config["weights_dir"]) if config["weights_dir"] else None
            self._runtime = Runtime(
                device=config["device"],
                threads=config["threads"],
                weights_dir=weights_dir,
                gpu_share=config["gpu_share"],
            )
            if config["software"] is not None:
                check_software(config["software"], this_software(), platform.node())
                check_run_dir(None if config["storage"] else self._files.root, platform.node())
            self._survey = SurveyData(Shards(**config["shards"]).local())
            pass_over_objects()
        make = self._peers.lead if self._peers is not None else Trainer

        def fresh(runtime: "Runtime", survey: "SurveyData") -> Trainer:
            return make(
                TrainConfig.from_dict(config["train"]),
                survey,
                runtime=runtime,
                on_first_step=self._note_first_step,
                micro_batch=config["micro_batch"],
            )

        trainer = fresh(self._runtime, self._survey)
        # A state that is refused may have filled a part of the network.
        return trainer if self._go_on(trainer) else fresh(self._runtime, self._survey)

    def _go_on(self, trainer: "Trainer") -> bool:
        """Continue from the state of an earlier worker; epochs that the study has not yet are told again first.

        A state that is damaged, learned from another survey, or was left by another trial of this number that was never
        told of, is passed over: the trial starts again, and the ledger passes over the epochs that it knows.

        A trial without a state of its own that begins from another's takes that one's; without it it trains all that
        its configuration says from scratch, and comes to the same.

        Returns:
            Whether the trainer is as it should be; False if it has to be made anew.
        """
        from galaxy_models.errors import WeightsError

        try:
            state = self._state()
            if state is None:
                return True
            trainer.load_state_dict(state)
        except WeightsError:
            return False
        self._history = state["history"]
        self._untold = self._history[self.config["known_epochs"] :]
        return True

    def _state(self) -> dict[str, Any] | None:
        """The state to continue from; None if there is none of this trial's configuration and survey."""
        from galaxy_models.training.checkpoint import load_state

        values = self.config
        wanted = [(values["number"], "config", values["train"])]
        if values["parent"] is not None:
            wanted.append((values["parent"], "epoch", values["branched_after"]))
        for number, name, value in wanted:
            path = state_path(self._files.root, values["space"], number)
            if self._files.fetch(path):
                state, digest = load_state(path), values["shards"]["digest"]
                # A state that does not say which survey it is of is older than the question.
                if state.get(name) == value and state.get("survey_digest", digest) == digest:
                    return state
        return None

    def _note_first_step(self) -> None:
        if self._idle_since is not None:
            self._handover_s = time.monotonic() - self._idle_since

    def _save(self, trainer: "Trainer") -> None:
        """Bring the epoch to the disk: first the weights, if they are the best yet, then the state that knows it.

        Nothing is removed: what a worker that is cut off asked for may be done when another has the trial. Earlier
        weights are the driver's to sweep.
        """
        from galaxy_models.training.checkpoint import save_state

        self._files.confirm()
        best = self._best_epoch(trainer.epoch - 1)
        value, direction = self._history[-1][self._key], self.config["direction"]
        previous = self._history[best - 1][self._key] if best else math.nan
        own = trainer.epoch > self.config["branched_after"]
        if own and better(value, previous, direction) and better(value, self.config["value_to_beat"], direction):
            place = self._files.root, self.config["space"], self.config["number"]
            trainer.save_weights(weights_path(*place, trainer.epoch))
            self._files.keep(weights_path(*place, trainer.epoch))
            self._files.drop(weights_path(*place, trainer.epoch))
        identity = {"config": self.config["train"], "survey_digest": self.config["shards"]["digest"]}
        state = {**trainer.state_dict(), **identity, "history": self._history}
        save_state(self._path(state_path), state)
        self._files.keep(self._path(state_path))

    def _best_epoch(self, up_to: int) -> int:
        """The best of its own epochs so far, from 1; 0 without one."""
        best, value = 0, math.nan
        after = self.config["branched_after"]
        for epoch, metrics in enumerate(self._history[after:up_to], start=after + 1):
            if better(metrics[self._key], value, self.config["direction"]):
                best, value = epoch, metrics[self._key]
        return best


def _is_the_trials_own(error: GalaxyError) -> bool:
    """Whether an error concerns this configuration alone, so that others may well run."""
    from galaxy_models.errors import OutOfMemoryError

    return isinstance(error, OutOfMemoryError | TrialHungError)
