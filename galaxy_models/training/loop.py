"""The training loop: one epoch of steps, then one look at the validation galaxies."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from galaxy_models.config import TrainConfig
from galaxy_models.data.order import epoch_order, micro_slices
from galaxy_models.errors import ConfigError, WeightsError
from galaxy_models.models.galaxy_model import build_model
from galaxy_models.seeds import derive_seed
from galaxy_models.task import METRICS
from galaxy_models.training.batch_statistics import refresh_batch_statistics
from galaxy_models.training.checkpoint import describe_model, describe_survey, save_weights
from galaxy_models.training.energy import find_counters, measured_energy
from galaxy_models.training.evaluation import EVAL_BATCH, evaluate, predict_logits
from galaxy_models.training.feed import Feed
from galaxy_models.training.losses import TrainLoss
from galaxy_models.training.memory import MicroBatch, indivisible
from galaxy_models.training.metrics import measure
from galaxy_models.training.optim import Schedule, change_optimizer, make_optimizer
from galaxy_models.training.ranks import Alone
from galaxy_models.training.runtime import Runtime, resolve_precision
from galaxy_models.training.survey import SurveyData

# Galaxies that batch norms' statistics are measured on; more than 128 changed validation by no more than chance does.
MAX_STATISTICS_ROWS = 256

__all__ = ["Trainer", "evaluate"]


@dataclass
class _Pass:
    """What one pass over the training galaxies leaves behind."""

    logits: list[Tensor] = field(default_factory=list)
    targets: list[Tensor] = field(default_factory=list)
    loss_sum: float = 0.0
    num_images: int = 0
    step_s: float = 0.0
    wait_s: float = 0.0
    finite: bool = True


class Trainer:
    """Trains one configuration, an epoch at a time.

    The same configuration, survey, device, number of threads and micro-batches give the same numbers, bit for bit.

    Where a batch does not fit into memory, it passes through the network in micro-batches whose gradients are added
    up: half of the batch at a time, then a quarter, and so on, down to single images. The batch stays the optimiser's:
    its loss is the mean over all of its images, its gradient is clipped once, and its images are varied as they would
    have been. So for networks without trained batch norms (group norm, layer norm, no norm, frozen batch norms) the
    gradient is the same but for roundings. It is another one where layers see the micro-batch and not the batch:
    trained batch norms normalise by the statistics of the micro-batch, and dropout and drop-path draw otherwise.

    Several processes that train a configuration together, each with a trainer of its own, share out every batch:
    they draw the same order and the same variations, and each takes its part. Gradients, batch norms' statistics and
    metrics are those of whole batches, so the numbers are those of one process but for roundings; dropout and
    drop-path alone draw otherwise. All call `run_epoch` at the same time; the first process keeps the record.

    Attributes:
        epoch: epochs done.
        model: the network.
    """

    def __init__(
        self,
        config: TrainConfig,
        survey: SurveyData,
        *,
        runtime: Runtime,
        on_first_step: Callable[[], None] | None = None,
        micro_batch: int | None = None,
        ranks: Alone | None = None,
    ) -> None:
        """Build the network and what trains it; reads no pixels.

        Args:
            config: what to train, and how.
            survey: what to train on.
            runtime: where to compute.
            on_first_step: called once, when the first batch is ready and its step begins.
            micro_batch: most images at once to start with, such as an earlier trial of this network was left with;
                None, or more than the batch = the whole batch.
            ranks: the processes that train it together, of which each has a trainer; None = this one alone.

        Raises:
            ConfigError: a setting that the network, the optimiser or the machine does not have, or batches of fewer
                galaxies than there are processes.
            DataError: a split without galaxies, or a damaged shard.
            WeightsError: initial weights that cannot be had.
        """
        self._config = config
        self._now = config.at(0)
        self._survey = survey
        self._device = runtime.activate()
        self._precision = resolve_precision(config.precision, self._device)
        self._counters = find_counters(runtime, self._device)
        self._train, self._val = survey.split("train"), survey.split("val")
        self._image_px = config.image_px or self._train.px
        self._loss = TrainLoss.for_config(config, survey.task, targets=self._train.targets)
        self._on_first_step = on_first_step
        self._ranks = ranks or Alone()
        model = build_model(config, survey.task, px=self._image_px, weights_dir=runtime.weights_dir)
        self.model = model.to(self._device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        self._optimizer = make_optimizer(config, self.model)
        self._feed = Feed(
            survey,
            batch_size=config.batch_size,
            image_px=self._image_px,
            device=self._device,
            share=self._ranks.share,
        )
        self._updates_per_epoch = len(self._feed.lengths)
        self._check_shares()
        self._schedule = Schedule(config, self._optimizer, updates_per_epoch=self._updates_per_epoch)
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=self._precision.scales_gradients)
        self._micro_batch = MicroBatch(min(micro_batch or config.batch_size, config.batch_size), self._device)
        self._eval_batch = MicroBatch(EVAL_BATCH, self._device)
        self._alike = self._ranks.share.num == 1
        self.epoch = 0

    @property
    def micro_batch(self) -> int:
        """Most training images that pass through the network at once: the batch size, if it has always fitted."""
        return self._micro_batch.size

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch, then measure the validation galaxies.

        Returns:
            `epoch`; `train_loss`, `val_loss` and, for each metric of the task, `train_<metric>` and `val_<metric>`;
            `learning_rate` (the head's, in the last update); `epoch_s` (training and validation); `data_wait_share`
            (fetching and varying images, as a share of the time in training steps); `images_per_s` (in training
            steps); `micro_batch` (at the end of the epoch); `diverged`; and where the machine offers counters
            `energy_j`, of that `cpu_energy_j` and `gpu_energy_j` (this training's share, validation included).

            Training metrics come from the passes that trained: of varied images, dropout on, the weights changing
            all along, and drawn by class if the sampling is balanced. Validation metrics are those of the weights
            at the end of the epoch. Both losses are what training minimises.

            A training loss or a validation answer that is not finite ends the trial: `diverged` is 1, every loss
            and metric NaN. A training loss that is not finite ends it in that step.

        Raises:
            OutOfMemoryError: not even a single image at a time fits into memory.
            PeerError: another of the processes that train together met a fault, or is gone.
        """
        with self._ranks.session(), measured_energy(self._counters) as energy:
            metrics = self._run_epoch()
        return metrics | energy

    def _run_epoch(self) -> dict[str, float]:
        start = time.perf_counter()
        if not self._alike:
            state = self._ranks.first_state(self.state_dict)
            if state is not None:
                self.load_state_dict(state)
            self._alike = True
        if self._config.changes:
            self._change_settings(self._config.at(self.epoch))
        number = self.epoch + 1
        passed = self._train_epoch()
        metrics = None
        if passed.finite:
            self.epoch = number
            metrics = self._validate(passed)
        return {
            "epoch": number,
            **(metrics or dict.fromkeys(self._names(), math.nan)),
            "learning_rate": float(self._optimizer.param_groups[0]["lr"]),
            "epoch_s": time.perf_counter() - start,
            "data_wait_share": passed.wait_s / passed.step_s,
            "images_per_s": passed.num_images / passed.step_s,
            "micro_batch": float(self.micro_batch),
            "diverged": float(metrics is None),
        }

    def _change_settings(self, now: TrainConfig) -> None:
        """Go on with other settings, also where a state that was loaded brought those of its own time."""
        self._now = now
        self._loss = TrainLoss.for_config(now, self._survey.task, targets=self._train.targets)
        change_optimizer(self._optimizer, now, self.model)
        self._schedule = Schedule(now, self._optimizer, updates_per_epoch=self._updates_per_epoch)

    def save_weights(self, path: Path) -> None:
        """Write the network as it is now, with all that `load_model` needs to rebuild it."""
        manifest = self._survey.manifest
        described = describe_model(self._config, manifest.task, px=self._image_px, survey_digest=manifest.digest)
        save_weights(path, self.model, {**described, **describe_survey(manifest)})

    def state_dict(self) -> dict[str, Any]:
        """All that an exact resume needs, at an epoch's end. Its tensors are the trainer's own: save them at once."""
        return {
            "epoch": self.epoch,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scaler": self._scaler.state_dict(),
            "micro_batch": self._micro_batch.size,
            "eval_batch": self._eval_batch.size,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue, bit for bit, where a trainer of the same configuration stood.

        Seeds and learning rates follow from the configuration and the epoch. What this trainer did before, such as
        a part of an epoch, is forgotten, but not that fewer images at once fit than when the state was saved: it may
        be the state of a process that ran out of memory. Entries that a caller added to the state are passed over.

        Args:
            state: of `state_dict`, or read back by `load_state`.

        Raises:
            WeightsError: it is of another network or optimiser, or no state of a trainer; make the trainer anew then.
        """
        try:
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self._scaler.load_state_dict(state["scaler"])
            self._micro_batch.size = min(self._micro_batch.size, int(state["micro_batch"]))
            self._eval_batch.size = int(state["eval_batch"])
            self.epoch = int(state["epoch"])
            self._alike = self._ranks.share.num == 1
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
            found = " ".join(str(error).split())
            raise WeightsError(
                f"training state: it is of another configuration than this trial's ({found:.300}): "
                "start the trial again"
            ) from None

    def _train_epoch(self) -> _Pass:
        seed = self._config.seed
        devices = [self._device] if self._device.type == "cuda" else []
        share = self._ranks.share
        passed = _Pass()
        self.model.train()
        # Dropout and drop-path know no generator but torch's own.
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(derive_seed(seed, "dropout", self.epoch, *([share.index] if share.index else [])))
            batches = self._feed.batches(self._now, epoch=self.epoch)
            for update in range(self.epoch * self._updates_per_epoch, (self.epoch + 1) * self._updates_per_epoch):
                start = time.perf_counter()
                images, targets, num_images = next(batches)
                ready = time.perf_counter()
                self._step(update, images, targets, num_images, passed)
                passed.wait_s += ready - start
                passed.step_s += time.perf_counter() - start
                if not passed.finite:
                    break
        return passed

    def _step(self, update: int, images: Tensor, targets: Tensor, num_images: int, passed: _Pass) -> None:
        if self._on_first_step is not None:
            self._on_first_step()
            self._on_first_step = None
        self._schedule.set_rates(update)

        def add_gradients(size: int) -> tuple[float, Tensor]:
            with self._ranks.attempt():
                return self._add_gradients(images, targets, num_images, size)

        largest = self._ranks.share.largest(num_images)
        value, logits = self._micro_batch.run(add_gradients, largest, undo=self._optimizer.zero_grad)
        passed.num_images += num_images
        passed.finite = math.isfinite(value)
        if not passed.finite:
            return
        with indivisible("the optimizer's state", self._device):
            self._update()
        passed.logits.append(logits)
        passed.targets.append(targets)
        passed.loss_sum += value * num_images

    def _add_gradients(self, images: Tensor, targets: Tensor, num_images: int, size: int) -> tuple[float, Tensor]:
        """Add up a batch's gradients in micro-batches of at most `size` images.

        Args:
            images: this process's part of the batch.
            targets: of these images.
            num_images: length of the whole batch.
            size: see above.

        Returns:
            The batch's loss, over all processes, and the (B, A) float32 logits of this process's part. A loss that
            is not finite ends it without gradients.
        """
        self._optimizer.zero_grad()
        share, network = self._ranks.share, self._ranks.network(self.model)
        value = 0.0
        logits: list[Tensor] = []
        parts = micro_slices(num_images, share, size=size)
        for number, part in enumerate(parts, start=1):
            with self._ranks.adding(network, more=number < len(parts)):
                with self._precision.autocast():
                    answers = network(images[part])
                # By its share of the images: the sum of the parts is then the mean over the batch. As often as there
                # are processes, since the gradient will be the mean over them.
                weight = len(answers) * share.num / num_images
                loss = self._loss(answers, targets[part], outputs=self.model.outputs) * weight
                logits.append(answers.detach().float())
                value += self._ranks.total(loss.item() / share.num)
                if not math.isfinite(value):
                    break
                self._scaler.scale(loss).backward()
        return value, torch.cat(logits)

    def _check_shares(self) -> None:
        num_ranks = self._ranks.share.num
        smallest = min(self._train.num_rows // self._updates_per_epoch, self._val.num_rows)
        if smallest < num_ranks:
            raise ConfigError(
                f"batch_size: got batches, or a validation split, of {smallest} galaxies for {num_ranks} processes, "
                "expected one for each at least: use larger ones, or fewer processes a trial"
            )

    def _update(self) -> None:
        if self._now.clip_grad_norm is not None:
            self._scaler.unscale_(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self._trained, self._now.clip_grad_norm)
        self._scaler.step(self._optimizer)
        self._scaler.update()

    def _validate(self, passed: _Pass) -> dict[str, float] | None:
        self._refresh_statistics()
        ranks = self._ranks
        own = np.arange(self._val.num_rows)[ranks.share.of(self._val.num_rows)]
        answers = predict_logits(
            self.model,
            self._val,
            image_px=self._image_px,
            precision=self._precision,
            micro_batch=self._eval_batch,
            rows=own,
        )
        logits = ranks.gathered(answers)
        if not bool(torch.isfinite(logits).all()):
            return None
        targets = torch.from_numpy(self._val.targets).to(self._device)
        kind, outputs = self._survey.task.kind, self.model.outputs
        seen = ranks.gathered(torch.cat(passed.logits)), ranks.gathered(torch.cat(passed.targets))
        with torch.inference_mode():
            train = measure(kind, *seen, outputs=outputs)
            val = measure(kind, logits, targets, outputs=outputs)
            losses = passed.loss_sum / passed.num_images, float(self._loss(logits, targets, outputs=outputs))
        values = (losses[0], *train.values(), losses[1], *val.values())
        return dict(zip(self._names(), values, strict=True))

    def _refresh_statistics(self) -> None:
        order = epoch_order(self._train.num_rows, seed=derive_seed(self._config.seed, "statistics"), epoch=self.epoch)
        rows = order[:MAX_STATISTICS_ROWS]
        if self._ranks.is_first:
            refresh_batch_statistics(
                self.model,
                self._train,
                rows,
                image_px=self._image_px,
                precision=self._precision,
                micro_batch=self._eval_batch,
            )
        self._ranks.share_buffers(self.model)

    def _names(self) -> list[str]:
        names = ("loss", *METRICS[self._survey.task.kind])
        return [f"{part}_{name}" for part in ("train", "val") for name in names]
