"""Training when memory runs out: micro-batches with the full batch's gradient, and a process that is really short."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from shapes_survey import VOTES, make_shapes, small_config
from torch import nn

from galaxy_models.config import AugmentConfig, CnnConfig, TrainConfig
from galaxy_models.errors import OutOfMemoryError
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData

RUNTIME = Runtime(threads=1)
# A gradient sums over 30 images x 400 positions; added in another order, one number after the other, float32 (unit
# roundoff 6e-8) errs at random by sqrt(12,000) x 6e-8 of the terms' norm. Kernels, which add in blocks, err less.
GRADIENT_TOLERANCE = 7e-6


@pytest.fixture(scope="module")
def surveys(tmp_path_factory: pytest.TempPathFactory) -> dict[str, SurveyData]:
    folder = tmp_path_factory.mktemp("micro")
    return {
        "classes": SurveyData(make_shapes(folder / "classes")),
        "votes": SurveyData(make_shapes(folder / "votes", task=VOTES, sizes=(120, 40, 0))),
    }


def _exact_config(**changes: object) -> TrainConfig:
    """Everything that is exact in micro-batches: class weights, clipping and augmentation, but no dropout."""
    settings: dict[str, object] = {
        "cnn": CnnConfig(width=8, depth=2, norm="group"),
        "drop_rate": 0.0,
        "precision": "float32",
        "class_balance": "loss",
        "clip_grad_norm": 0.5,
        "optimizer": "sgd",
        "augment": AugmentConfig(rotation_deg=20.0, brightness=0.1, noise=0.01),
    }
    return small_config(**{**settings, **changes})


def _limit(trainer: Trainer, most: int, *, also_evaluation: bool = False) -> list[torch.Tensor]:
    """Let the network run out of memory above a number of images; returns what it was trained on."""
    seen: list[torch.Tensor] = []

    def refuse(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        if len(inputs[0]) > most and (torch.is_grad_enabled() or also_evaluation):
            raise torch.OutOfMemoryError("out of memory")
        if torch.is_grad_enabled():
            seen.append(inputs[0].clone())

    trainer.model.register_forward_pre_hook(refuse)
    return seen


def _gradients(trainer: Trainer, monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The gradient of each update of an epoch, after clipping, as one vector."""
    found: list[torch.Tensor] = []
    step = trainer._scaler.step

    def note(optimizer: torch.optim.Optimizer, *args: Any) -> Any:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        found.append(torch.cat([p.grad.flatten() for p in parameters]))
        return step(optimizer, *args)

    monkeypatch.setattr(trainer._scaler, "step", note)
    return found


def _weights(trainer: Trainer) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])


@pytest.mark.parametrize("kind", ["classes", "votes"])
@pytest.mark.parametrize("most", [29, 5])
def test_micro_batches_have_the_batchs_gradient(surveys, kind: str, most: int, monkeypatch) -> None:
    # A learning rate of next to nothing, so that all eight updates compare at the same weights.
    config = _exact_config(learning_rate=1e-8, weight_decay=0.0)
    whole, split = (Trainer(config, surveys[kind], runtime=RUNTIME) for _ in range(2))
    seen_whole, seen_split = _limit(whole, 10**6), _limit(split, most)
    expected, found = _gradients(whole, monkeypatch), _gradients(split, monkeypatch)
    plain, halved = whole.run_epoch(), split.run_epoch()
    assert len(found) == len(expected) == (8 if kind == "classes" else 4)
    for gradient, other in zip(expected, found, strict=True):
        assert torch.linalg.norm(gradient - other) < GRADIENT_TOLERANCE * torch.linalg.norm(gradient)
    assert max(map(len, seen_split)) <= most
    assert torch.equal(torch.cat(seen_split), torch.cat(seen_whole)), "images were varied otherwise"
    assert (plain["micro_batch"], halved["micro_batch"]) == (32, {29: 15, 5: 4}[most])
    assert whole.micro_batch == 32
    assert halved["images_per_s"] > 0
    for name in ("train_loss", "val_loss"):
        assert halved[name] == pytest.approx(plain[name], rel=1e-5)


def test_weights_after_an_epoch_are_those_of_whole_batches(surveys) -> None:
    config = _exact_config(learning_rate=0.01)
    whole, split = (Trainer(config, surveys["classes"], runtime=RUNTIME) for _ in range(2))
    _limit(split, 10)
    start = _weights(whole)
    whole.run_epoch()
    split.run_epoch()
    end, other = _weights(whole), _weights(split)
    # Eight updates, each of which hands on the errors of those before it.
    assert torch.linalg.norm(end - other) < 8 * GRADIENT_TOLERANCE * torch.linalg.norm(end - start)
    assert torch.linalg.norm(end - start) > 0.01


def test_a_remembered_micro_batch_gives_the_same_bits_as_a_halved_one(surveys) -> None:
    # With batch norm, dropout and every other random part.
    config = small_config(epochs=2)
    halved = Trainer(config, surveys["classes"], runtime=RUNTIME)
    _limit(halved, 8)
    remembered = Trainer(config, surveys["classes"], runtime=RUNTIME, micro_batch=8)
    for _ in range(2):
        expected, found = halved.run_epoch(), remembered.run_epoch()
        assert found["micro_batch"] == expected["micro_batch"] == 8
        assert found["val_nll"] == expected["val_nll"]
        assert found["train_loss"] == expected["train_loss"]
    for name, tensor in halved.model.state_dict().items():
        assert torch.equal(tensor, remembered.model.state_dict()[name]), name


def test_validation_and_statistics_halve_too(surveys) -> None:
    config = small_config(precision="float32")
    plain, short = (Trainer(config, surveys["classes"], runtime=RUNTIME, micro_batch=10) for _ in range(2))
    _limit(short, 20, also_evaluation=True)
    expected, found = plain.run_epoch(), short.run_epoch()
    # Batch norms' statistics are then means over batches of 16 instead of 64: variances 1/16 smaller at most.
    assert found["val_nll"] == pytest.approx(expected["val_nll"], rel=0.05)
    assert found["train_loss"] == expected["train_loss"]
    norm = next(module for module in short.model.modules() if isinstance(module, nn.BatchNorm2d))
    assert norm.num_batches_tracked == 240 / 16
    assert norm.momentum == 0.1


def test_validation_in_halves_gives_the_same_answers(surveys) -> None:
    config = _exact_config()
    plain, short = (Trainer(config, surveys["classes"], runtime=RUNTIME, micro_batch=8) for _ in range(2))
    _limit(short, 8, also_evaluation=True)
    expected, found = plain.run_epoch(), short.run_epoch()
    # Each image's answer stands alone; kernels may sum its terms in another order for another batch.
    assert found["val_nll"] == pytest.approx(expected["val_nll"], rel=1e-6)


def test_a_network_for_which_one_image_is_too_much_ends_the_trial(surveys) -> None:
    trainer = Trainer(small_config(), surveys["classes"], runtime=RUNTIME)
    _limit(trainer, 0)
    with pytest.raises(OutOfMemoryError, match="a single image does not fit"):
        trainer.run_epoch()


def test_an_optimizer_without_room_for_its_state_ends_the_trial(surveys, monkeypatch) -> None:
    trainer = Trainer(small_config(), surveys["classes"], runtime=RUNTIME)

    def refuse(*_: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(trainer._scaler, "step", refuse)
    with pytest.raises(OutOfMemoryError, match="the optimizer's state does not fit"):
        trainer.run_epoch()
    assert trainer.micro_batch == 32


SHORT_OF_MEMORY = """
import resource, sys
from shapes_survey import small_config
from galaxy_models.config import AugmentConfig, CnnConfig
from galaxy_models.training.loop import Trainer
from galaxy_models.training.runtime import Runtime
from galaxy_models.training.survey import SurveyData

config = small_config(
    image_px=96, batch_size=64, cnn=CnnConfig(width=32, depth=2, norm="group"), precision="float32",
    augment=AugmentConfig(),
)
trainer = Trainer(config, SurveyData(sys.argv[1]), runtime=Runtime(threads=1))
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + 100 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
result = trainer.run_epoch()
print(int(result["micro_batch"]), result["diverged"], trainer.epoch)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="the limit is set from Linux's /proc")
def test_process_that_is_really_short_of_memory_finishes_its_epoch(tmp_path: Path) -> None:
    # One layer's output of the whole batch is 64 x 32 x 96 x 96 x 4 bytes = 75 MB, and its gradient takes as much
    # again: more than the 100 MB left to the process. A fault of that size is beyond any allocator's reserves.
    directory = make_shapes(tmp_path / "shapes", sizes=(64, 20, 0))
    done = subprocess.run(
        [sys.executable, "-c", SHORT_OF_MEMORY, str(directory)],
        cwd=Path(__file__).parent,
        # A thread's first allocation would set aside up to 128 MB of addresses for it, which the limit counts.
        env={"PYTHONPATH": f"{Path(__file__).parents[2]}", "PATH": "", "MALLOC_ARENA_MAX": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    micro_batch, diverged, epoch = done.stdout.split()
    assert 1 <= int(micro_batch) < 64
    assert (diverged, epoch) == ("0.0", "1")
