"""A second process that trains together with the one that runs the tests, with faults planted in it."""

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, ClassVar

import torch

from galaxy_models.config import TrainConfig
from galaxy_models.training.loop import Trainer
from galaxy_models.training.ranks import Team, join_store, open_store
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData

HOST = "127.0.0.1"
TIMEOUT_S = 30.0


class Together:
    """This process's trainer, and another process with its own; they run their epochs at the same time."""

    # torch knows one group of processes at a time.
    team: ClassVar[Team | None] = None

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.trainer: Trainer

    def begin(
        self, config: TrainConfig, directory: Path, *, plant: str = "", micro_batch: int | None = None
    ) -> Trainer:
        """Make both trainers."""
        self.leave()
        store = open_store(HOST, 2, timeout_s=TIMEOUT_S)
        self._pipe.send((config, directory, store.port, plant, micro_batch))
        Together.team = Team(store, index=0, num=2, timeout_s=TIMEOUT_S)
        runtime, survey = Runtime(threads=1), SurveyData(directory)
        self.trainer = Trainer(config, survey, runtime=runtime, micro_batch=micro_batch, ranks=Together.team)
        return self.trainer

    def leave(self) -> None:
        if Together.team is not None:
            Together.team.close()
            Together.team = None

    def run_epoch(self) -> dict[str, float]:
        self._pipe.send("run_epoch")
        metrics = self.trainer.run_epoch()
        assert self.answer() == metrics_without_clock(metrics)
        return metrics

    def answer(self) -> Any:
        """What the other process has to say: an epoch's metrics, or the fault it met."""
        assert self._pipe.poll(TIMEOUT_S), "no answer"
        return self._pipe.recv()

    def other_weights(self) -> torch.Tensor:
        self._pipe.send("weights")
        return torch.tensor(self.answer())

    def send(self, word: str) -> None:
        self._pipe.send(word)


@contextmanager
def together() -> Iterator[Together]:
    """Start the second process, and end it."""
    context = multiprocessing.get_context("spawn")
    ours, its = context.Pipe()
    process = context.Process(target=_serve, args=(its,))
    process.start()
    its.close()
    pair = Together(ours)
    try:
        yield pair
    finally:
        pair.leave()
        ours.close()
        process.join(20)
        assert process.exitcode is not None, "the second process does not end"


def metrics_without_clock(metrics: dict[str, float]) -> dict[str, str]:
    clock = ("epoch_s", "images_per_s", "data_wait_share")
    return {name: repr(value) for name, value in metrics.items() if name not in clock}


def weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


def _serve(pipe: Connection) -> None:
    trainer, team = None, None
    while True:
        try:
            order = pipe.recv()
        except EOFError:
            return
        if order == "weights":
            pipe.send(weights(trainer).tolist())
        elif order == "run_epoch":
            try:
                pipe.send(metrics_without_clock(trainer.run_epoch()))
            except Exception as error:
                pipe.send(f"{type(error).__name__}: {error}")
        else:
            config, directory, port, plant, micro_batch = order
            if team is not None:
                team.close()
            store = join_store(HOST, port, 2, timeout_s=TIMEOUT_S)
            team = Team(store, index=1, num=2, timeout_s=TIMEOUT_S)
            runtime, survey = Runtime(threads=1), SurveyData(directory)
            trainer = Trainer(config, survey, runtime=runtime, micro_batch=micro_batch, ranks=team)
            PLANTS[plant](trainer)


def _third_forward(trainer: Trainer, act: Callable[[], None]) -> None:
    calls: list[None] = []

    def count(*_: Any) -> None:
        calls.append(None)
        if len(calls) == 3:
            act()

    trainer.model.register_forward_pre_hook(count)


def _no_number(trainer: Trainer) -> None:
    def spoil() -> None:
        with torch.no_grad():
            next(trainer.model.parameters()).fill_(float("nan"))

    _third_forward(trainer, spoil)


def _little_memory(trainer: Trainer) -> None:
    def refuse(module: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > 5 and torch.is_grad_enabled():
            raise torch.OutOfMemoryError("planted")

    trainer.model.head.register_forward_pre_hook(refuse)


def _little_memory_backward(trainer: Trainer) -> None:
    def refuse(module: torch.nn.Module, inputs: Any, outputs: Any) -> None:
        if len(outputs[0]) > 5:
            raise torch.OutOfMemoryError("planted")

    # The last layer but one: others have exchanged their gradients, or wait for its statistics.
    next(trainer.model.backbone.children())[0].register_full_backward_hook(refuse)


def _bug(trainer: Trainer) -> None:
    def fail() -> None:
        raise ZeroDivisionError("planted")

    _third_forward(trainer, fail)


PLANTS: dict[str, Callable[[Trainer], None]] = {
    "": lambda trainer: None,
    "no number": _no_number,
    "memory": _little_memory,
    "memory in backward": _little_memory_backward,
    "bug": _bug,
}
