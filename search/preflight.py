"""Everything that can be found wrong before the first trial is found here."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from galaxy_models.config import TrainConfig
from galaxy_models.data.manifest import Manifest
from galaxy_models.errors import GalaxyError
from galaxy_models.models import check_network, check_weights
from galaxy_models.task import Direction, objective_direction
from search.errors import RunError, SearchFault
from search.options import SearchOptions
from search.space import Space, load_space, probe_space

SIMULATED_SKY = Path("shards") / "simulated"
SIMULATED_PX = 64


@dataclass(frozen=True)
class Plan:
    """A search that may begin.

    Attributes:
        spaces: the spaces by name, in the order given.
        parameters: names of all their parameters.
        data: the shards' folder.
        manifest: what is in it.
        metric: the validation metric to optimise.
        direction: which way is better.
    """

    spaces: dict[str, Space]
    parameters: list[str]
    data: Path
    manifest: Manifest
    metric: str
    direction: Direction


def make_plan(options: SearchOptions, console: Console) -> Plan:
    """Check the spaces, the survey and the weights.

    Raises:
        GalaxyError: any of them cannot be used.
    """
    spaces = {path.stem: load_space(path) for path in options.spaces}
    if options.weights_dir is not None and not options.weights_dir.is_dir():
        raise RunError(f"--weights-dir: {options.weights_dir} is no folder, expected one of safetensors files")
    probes = {name: probe_space(space, seed=options.seed, fixed=options.fixed) for name, space in spaces.items()}
    data = options.data if options.data is not None else simulated_sky(console)
    manifest = Manifest.load(data)
    metric, direction = objective_direction(manifest.task.kind, options.objective)
    for split in ("train", "val", "test"):
        if not manifest.splits[split].num_rows:
            raise RunError(f"{data}: the split {split} is empty: convert the survey again with more galaxies in it")
    manifest.verify(data)
    for name, probe in probes.items():
        check_networks(spaces[name], probe.configs, px=manifest.px, weights_dir=options.weights_dir)
    parameters = sorted({name for probe in probes.values() for name in probe.parameters})
    return Plan(spaces, parameters, data, manifest, metric, direction)


def simulated_sky(console: Console) -> Path:
    """The simulated survey, drawn the first time it is asked for."""
    if not (SIMULATED_SKY / "manifest.json").is_file():
        from galaxy_models.data.convert import main as convert

        console.print(f"no --data given: drawing a simulated sky into {SIMULATED_SKY}, once", highlight=False)
        code = convert(["simulated", "--out", str(SIMULATED_SKY), "--px", str(SIMULATED_PX)])
        if code:
            raise SearchFault(f"{SIMULATED_SKY}: the simulated sky could not be drawn: see the message above")
    return SIMULATED_SKY


def check_networks(space: Space, configs: Sequence[TrainConfig], *, px: int, weights_dir: Path | None) -> None:
    """Check that a space's networks exist, take the images, and that their initial weights can be had.

    Raises:
        GalaxyError: one cannot; the message names the space.
    """
    shapes, weights = set(), set()
    for config in configs:
        image_px = config.image_px or px
        shape = (config.backbone, config.cnn, config.trainable_stages, config.drop_path_rate > 0, image_px)
        source = (config.backbone, config.weights, config.cnn)
        try:
            if shape not in shapes:
                check_network(config, px=image_px)
            if config.weights != "none" and source not in weights:
                check_weights(config, weights_dir=weights_dir)
        except GalaxyError as error:
            raise type(error)(f"{space.path}: {error}") from error
        shapes.add(shape)
        weights.add(source)
