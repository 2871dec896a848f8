"""One configuration of a training run: frozen, checked when made, and plain enough to write as JSON."""

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from galaxy_models.errors import ConfigError

NAMED_BACKBONES = ("cnn", "inception_v3", "vgg16", "resnet50", "xception")
SCHEDULES = ("cosine", "poly", "step", "constant")
CLASS_BALANCES = ("none", "loss", "sampling")
PRECISIONS = ("auto", "float32", "bf16")


def _check_range(where: str, value: float | None, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ConfigError(f"{where}: got {value!r}, expected a number from {low:g} to {high:g}")


def _check_int(where: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise ConfigError(f"{where}: got {value!r}, expected a whole number from {low} to {high}")


def _check_choice(where: str, value: object, choices: tuple[Any, ...]) -> None:
    if value not in choices or type(value) is not type(choices[0]):  # 3.0 == 3, yet is no kernel
        raise ConfigError(f"{where}: got {value!r}, expected one of {', '.join(map(repr, choices))}")


def _check_bool(where: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{where}: got {value!r}, expected True or False")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """How training images are varied. The defaults are the eight symmetries and nothing else.

    Attributes:
        symmetries: draw one of the eight symmetries of the square for each image.
        rotation_deg: rotate by an angle drawn uniformly from ± this many degrees.
        shift: shift by up to this fraction of the image's side, in each direction.
        zoom: scale by a factor drawn log-uniformly from [1/zoom, zoom].
        brightness: multiply by a factor drawn uniformly from 1 ± brightness.
        noise: add Gaussian noise of this standard deviation, in units of full scale.
    """

    symmetries: bool = True
    rotation_deg: float = 0.0
    shift: float = 0.0
    zoom: float = 1.0
    brightness: float = 0.0
    noise: float = 0.0

    def __post_init__(self) -> None:
        _check_bool("augment.symmetries", self.symmetries)
        _check_range("augment.rotation_deg", self.rotation_deg, 0.0, 180.0)
        _check_range("augment.shift", self.shift, 0.0, 0.25)
        _check_range("augment.zoom", self.zoom, 1.0, 2.0)
        _check_range("augment.brightness", self.brightness, 0.0, 0.9)
        _check_range("augment.noise", self.noise, 0.0, 0.5)


@dataclass(frozen=True, kw_only=True)
class CnnConfig:
    """The shape of the custom convolutional network.

    Attributes:
        width: channels of the first stage; each stage doubles them, up to 512.
        depth: number of stages; each halves the image's side.
        convs_per_stage: convolutions in each stage.
        kernel: side of the convolutions, in pixels: 3, 5 or 7.
        norm: `batch`, `group` or `none`.
        pool: how a stage halves the side: `max`, `avg` or `stride`.
    """

    width: int = 32
    depth: int = 4
    convs_per_stage: int = 1
    kernel: int = 3
    norm: str = "batch"
    pool: str = "max"

    def __post_init__(self) -> None:
        _check_int("cnn.width", self.width, 4, 256)
        _check_int("cnn.depth", self.depth, 1, 7)
        _check_int("cnn.convs_per_stage", self.convs_per_stage, 1, 4)
        _check_choice("cnn.kernel", self.kernel, (3, 5, 7))
        _check_choice("cnn.norm", self.norm, ("batch", "group", "none"))
        _check_choice("cnn.pool", self.pool, ("max", "avg", "stride"))


@dataclass(frozen=True, kw_only=True)
class Change:
    """Settings that a training goes on with from some epoch on: all that can change while a network learns.

    Attributes:
        after_epoch: how many epochs are done when they change.
        learning_rate, backbone_lr_scale, weight_decay, clip_grad_norm, label_smoothing, class_balance, augment: see
            `TrainConfig`.
    """

    after_epoch: int
    learning_rate: float
    backbone_lr_scale: float
    weight_decay: float
    clip_grad_norm: float | None
    label_smoothing: float
    class_balance: str
    augment: AugmentConfig

    @property
    def settings(self) -> dict[str, Any]:
        """The new values, by their names in `TrainConfig`."""
        return {name: getattr(self, name) for name in CHANGEABLE}


CHANGEABLE = tuple(item.name for item in fields(Change) if item.name != "after_epoch")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One trial: which network, from which weights, trained how.

    Attributes:
        backbone: `cnn`, `inception_v3`, `vgg16`, `resnet50`, `xception`, or `timm:` and any timm model's name.
        weights: `imagenet`, `none`, a local file (.safetensors, .pth, .pt, .bin), or `hf-hub:` and a repository.
        trainable_stages: how many of the backbone's last stages are trained: 0 = the head only, None = all.
        image_px: side of the images the network sees, in pixels; None = as stored in the shards.
        cnn: the shape of the custom network; only for the backbone `cnn`.
        batch_size: galaxies per optimiser step.
        optimizer: the name of a timm optimiser, such as `adamw` or `sgd`.
        learning_rate: peak learning rate of the head.
        backbone_lr_scale: the backbone's learning rate as a multiple of the head's.
        momentum: momentum of optimisers that have one.
        weight_decay: on weights; never on biases and normalisation layers.
        schedule: `cosine`, `poly`, `step` or `constant`, after the warm-up.
        warmup_epochs: epochs over which the learning rate rises linearly; may be a fraction.
        clip_grad_norm: largest norm of the gradient; None = unclipped.
        drop_rate: dropout before the head.
        drop_path_rate: stochastic depth, for backbones that have it.
        label_smoothing: share of each label spread over all classes; only for classes.
        class_balance: `none`, `loss` (weighted by inverse frequency) or `sampling` (drawn by it); only for classes.
        augment: how training images are varied.
        epochs: length of the schedule and of a run that is not stopped early; set by the search.
        seed: of initial weights, order, augmentation and dropout; set by the search.
        precision: `float32`, `bf16`, or `auto`: the fastest that the processor computes in hardware.
        changes: settings that change on the way, in the order of their epochs; from population based training.
    """

    backbone: str
    weights: str = "none"
    trainable_stages: int | None = None
    image_px: int | None = None
    cnn: CnnConfig | None = None
    batch_size: int = 64
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    backbone_lr_scale: float = 1.0
    momentum: float = 0.9
    weight_decay: float = 0.05
    schedule: str = "cosine"
    warmup_epochs: float = 1.0
    clip_grad_norm: float | None = None
    drop_rate: float = 0.0
    drop_path_rate: float = 0.0
    label_smoothing: float = 0.0
    class_balance: str = "none"
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    epochs: int = 27
    seed: int = 0
    precision: str = "auto"
    changes: tuple[Change, ...] = ()

    def __post_init__(self) -> None:
        self._check_network()
        _check_int("batch_size", self.batch_size, 4, 65536)
        if not isinstance(self.optimizer, str) or not self.optimizer:
            raise ConfigError(f"optimizer: got {self.optimizer!r}, expected a timm optimiser's name, such as 'adamw'")
        _check_range("learning_rate", self.learning_rate, 1e-8, 100.0)
        _check_range("backbone_lr_scale", self.backbone_lr_scale, 0.0, 10.0)
        _check_range("momentum", self.momentum, 0.0, 0.9999)
        _check_range("weight_decay", self.weight_decay, 0.0, 10.0)
        _check_choice("schedule", self.schedule, SCHEDULES)
        _check_range("warmup_epochs", self.warmup_epochs, 0.0, 1000.0)
        if self.clip_grad_norm is not None:
            _check_range("clip_grad_norm", self.clip_grad_norm, 1e-6, 1e6)
        _check_range("drop_rate", self.drop_rate, 0.0, 0.95)
        _check_range("drop_path_rate", self.drop_path_rate, 0.0, 0.95)
        _check_range("label_smoothing", self.label_smoothing, 0.0, 0.9)
        _check_choice("class_balance", self.class_balance, CLASS_BALANCES)
        if not isinstance(self.augment, AugmentConfig):
            raise ConfigError(f"augment: got {self.augment!r}, expected an AugmentConfig")
        _check_int("epochs", self.epochs, 1, 100_000)
        _check_int("seed", self.seed, 0, 2**63 - 1)
        _check_choice("precision", self.precision, PRECISIONS)
        self._check_changes()

    def _check_network(self) -> None:
        timm_name = isinstance(self.backbone, str) and self.backbone.startswith("timm:") and len(self.backbone) > 5
        if self.backbone not in NAMED_BACKBONES and not timm_name:
            raise ConfigError(
                f"backbone: got {self.backbone!r}, expected one of {', '.join(NAMED_BACKBONES)}, "
                "or 'timm:' followed by the name of a timm model"
            )
        if not isinstance(self.weights, str) or not self.weights:
            raise ConfigError(f"weights: got {self.weights!r}, expected 'imagenet', 'none', a file or 'hf-hub:...'")
        if self.trainable_stages is not None:
            _check_int("trainable_stages", self.trainable_stages, 0, 1000)
        if self.weights == "none" and self.trainable_stages is not None:
            raise ConfigError(
                f"trainable_stages: got {self.trainable_stages} with weights 'none', expected None: "
                "freezing a network that starts from random weights leaves it random"
            )
        if self.image_px is not None:
            _check_int("image_px", self.image_px, 16, 1024)
        if self.backbone == "cnn":
            self._check_cnn()
        elif self.cnn is not None:
            raise ConfigError(f"cnn: got a CnnConfig for the backbone {self.backbone!r}, expected none")

    def _check_cnn(self) -> None:
        if not isinstance(self.cnn, CnnConfig):
            raise ConfigError(f"cnn: got {self.cnn!r} for the backbone 'cnn', expected a CnnConfig")
        if self.weights == "imagenet":
            raise ConfigError("weights: got 'imagenet' for the backbone 'cnn', expected 'none' or a file of its own")

    def _check_changes(self) -> None:
        if not isinstance(self.changes, tuple) or not all(isinstance(change, Change) for change in self.changes):
            raise ConfigError(f"changes: got {self.changes!r:.200}, expected a tuple of Changes")
        before = 0
        for index, change in enumerate(self.changes):
            where = f"changes[{index}]"
            _check_int(f"{where}.after_epoch", change.after_epoch, before + 1, 100_000)
            before = change.after_epoch
            try:
                replace(self, changes=(), **change.settings)
            except ConfigError as error:
                raise ConfigError(f"{where}.{error}") from None

    def at(self, epoch: int) -> "TrainConfig":
        """What is trained after so many epochs: the settings of the last change until then.

        Args:
            epoch: epochs done, from 0.
        """
        made = [change for change in self.changes if change.after_epoch <= epoch]
        return replace(self, changes=(), **made[-1].settings) if made else replace(self, changes=())

    def changed(self, after_epoch: int, other: "TrainConfig") -> "TrainConfig":
        """This configuration, going on with another's changeable settings.

        Args:
            after_epoch: epochs done when they change, later than the changes made already.
            other: has the settings; nothing else of it matters.
        """
        settings = {name: getattr(other, name) for name in CHANGEABLE}
        return replace(self, changes=(*self.changes, Change(after_epoch=after_epoch, **settings)))

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types, for reports and for workers; `changes` only where there are any."""
        values = asdict(self)
        changes = values.pop("changes")
        return {**values, "changes": list(changes)} if changes else values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Rebuild a configuration from `to_dict`.

        Raises:
            ConfigError: an unknown field, a missing one or a value out of its range.
        """
        values = _known_fields("config", cls, values)
        if isinstance(values.get("augment"), dict):
            values["augment"] = AugmentConfig(**_known_fields("config.augment", AugmentConfig, values["augment"]))
        if isinstance(values.get("cnn"), dict):
            values["cnn"] = CnnConfig(**_known_fields("config.cnn", CnnConfig, values["cnn"]))
        if isinstance(values.get("changes"), list):
            values["changes"] = tuple(_change(f"config.changes[{i}]", one) for i, one in enumerate(values["changes"]))
        if "backbone" not in values:
            raise ConfigError("config: got no 'backbone', expected one")
        return cls(**values)


def _change(where: str, values: object) -> Change:
    known = _known_fields(where, Change, values)
    if missing := sorted({item.name for item in fields(Change)} - set(known)):
        raise ConfigError(f"{where}: got no {missing[0]!r}, expected one")
    if isinstance(known["augment"], dict):
        where = f"{where}.augment"
        known["augment"] = AugmentConfig(**_known_fields(where, AugmentConfig, known["augment"]))
    return Change(**known)


def _known_fields(where: str, kind: type, values: object) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: got {values!r}, expected an object of {kind.__name__}'s fields")
    known = [item.name for item in fields(kind)]
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ConfigError(f"{where}: got the unknown field {unknown[0]!r}, expected some of {', '.join(known)}")
    return dict(values)
