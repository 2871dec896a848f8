"""Everything that can be found wrong before the first trial is found here."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from galaxy_models.config import CHANGEABLE, TrainConfig
from galaxy_models.data.conversion import convert_survey
from galaxy_models.data.manifest import MANIFEST_NAME, Manifest
from galaxy_models.data.plan import ConvertSettings
from galaxy_models.data.progress import Progress
from galaxy_models.data.readers.simulated import SimulatedReader
from galaxy_models.errors import GalaxyError
from galaxy_models.models import check_network, check_weights
from galaxy_models.task import Direction, objective_direction
from galaxy_models.training.optim import check_optimizer
from search.errors import RunError
from search.options import SearchOptions, check_free
from search.population import is_change
from search.samplers import check_sampler, grid_values
from search.shards import fetch_shards
from search.space import NUM_PROBES, Probe, Space, fixed_sampler, load_space, probe_space
from search.storage import Storage, is_uri
from search.study import best_params, load_studies, queue_item

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

SIMULATED_SKY = Path("shards") / "simulated"
SIMULATED_PX = 64
SIMULATED_GALAXIES = 2000
# Configurations taken from an earlier run.
NUM_WARM = 3
# Images more than this many times larger than any network looks at are worth a note.
_MUCH_LARGER = 2
# Settings of TrainConfig that only classes know, by the name that a space would give the parameter.
_IDLE_FOR_VOTES = {"label_smoothing": 0.0, "class_balance": "none"}


@dataclass(frozen=True)
class Plan:
    """A search that may begin.

    Attributes:
        spaces: the spaces by name, in the order given.
        fixed: for each space, the parameters that are not searched; see `fixed_parameters`.
        parameters: names of all their parameters.
        data: the shards' folder on this machine.
        manifest: what is in it.
        metric: the validation metric to optimise.
        direction: which way is better.
        queues: for each space, configurations to run before the sampler's own; see `study.queue_item`.
        distributions: for each space, where its parameters are drawn from.
        data_uri: where the shards were fetched from; empty if they were here.
    """

    spaces: dict[str, Space]
    fixed: dict[str, dict[str, Any]]
    parameters: list[str]
    data: Path
    manifest: Manifest
    metric: str
    direction: Direction
    queues: dict[str, list[dict[str, Any]]]
    distributions: dict[str, Mapping[str, "BaseDistribution"]]
    data_uri: str = ""


def make_plan(options: SearchOptions, console: Console) -> Plan:
    """Check the options, the spaces, the survey and the weights.

    Raises:
        GalaxyError: any of them cannot be used.
    """
    if options.resume is None:
        check_free(options)
        if options.storage is not None:
            check_storage(options.storage, options.name)
    if options.weights_dir is not None and not options.weights_dir.is_dir():
        raise RunError(f"--weights-dir: {options.weights_dir} is no folder, expected one of safetensors files")
    spaces = {path.stem: load_space(path) for path in options.spaces}
    free = {name: probe_space(space, seed=options.seed, fixed={}) for name, space in spaces.items()}
    parameters = sorted({name for probe in free.values() for name in probe.distributions})
    for name in options.fixed:
        if name not in parameters:
            raise RunError(f"--fix {name}: no space has such a parameter, expected one of {', '.join(parameters)}")
    data_uri = str(options.data) if is_uri(options.data) else ""
    data = fetch_shards(data_uri) if data_uri else Path(options.data or simulated_sky(console))
    manifest = Manifest.load(data)
    metric, direction = objective_direction(manifest.task.kind, options.objective)
    fixed = {space: fixed_parameters(probe, options.fixed, manifest) for space, probe in free.items()}
    probes = {
        name: probe_space(space, seed=options.seed, fixed=fixed[name]) if fixed[name] else free[name]
        for name, space in spaces.items()
    }
    check_survey(manifest, data, metric)
    for name, probe in probes.items():
        check_sampler(options.sampler, free[name].distributions, fixed[name])
        check_networks(spaces[name], probe.configs, px=manifest.px, weights_dir=options.weights_dir)
    for note in notes_on_sizes({name: probe.configs for name, probe in probes.items()}, px=manifest.px):
        console.print(f"note     {note}", highlight=False, markup=False, soft_wrap=True)
    if options.scheduler == "pbt":
        for name, space in spaces.items():
            check_changeable(space, fixed[name], seed=options.seed)
    queues = first_trials(options, spaces, probes, fixed)
    distributions = {name: probe.distributions for name, probe in free.items()}
    return Plan(spaces, fixed, parameters, data, manifest, metric, direction, queues, distributions, data_uri)


def check_changeable(space: Space, fixed: Mapping[str, Any], *, seed: int) -> None:
    """Check that a space has something that population based training can vary.

    Raises:
        RunError: it has nothing of the kind.
    """
    import optuna

    study = optuna.create_study(sampler=fixed_sampler(optuna.samplers.RandomSampler(seed=seed), fixed))
    # As many as a space is tried with, since it may have something to change in some of its branches only.
    for _ in range(NUM_PROBES):
        trial = study.ask()
        before = space.config(trial)
        for name, values in grid_values(trial.distributions, {}).items():
            for value in values if name not in fixed else ():
                if is_change(before, {**trial.params, name: value}, space.config_of):
                    return
    raise RunError(
        f"--scheduler pbt: {space.path} has no parameter that can change while a network is trained, expected one of "
        f"{', '.join(CHANGEABLE)}: choose another scheduler"
    )


def check_storage(root: str, name: str | None) -> None:
    """Check that runs can be kept in a storage, and that there is none of this name yet.

    Raises:
        StorageError: it cannot be written.
        RunError: there is one.
    """
    storage = Storage(root)
    storage.check()
    if name is not None and (there := storage.child(name)).names():
        raise RunError(f"--name: {there.uri} exists already, expected a new folder: choose another name")


def first_trials(
    options: SearchOptions,
    spaces: Mapping[str, Space],
    probes: Mapping[str, Probe],
    fixed: Mapping[str, Mapping[str, Any]],
) -> dict[str, list[dict[str, Any]]]:
    """Configurations that each space's search begins with: its named ones, then the best of an earlier run.

    Raises:
        RunError: the earlier run has no such space.
    """
    if options.sampler == "grid":
        return {name: [] for name in spaces}  # a grid has its own order, and no place beside it
    queues = {
        name: [queue_item(item, named=True) for item in space.named_with(fixed[name])] for name, space in spaces.items()
    }
    # A run that goes on has its queue in its studies.
    if options.warm_start is not None and options.resume is None:
        studies = load_studies(options.warm_start)
        if not studies.keys() & spaces.keys():
            raise RunError(
                f"--warm-start {options.warm_start}: it searched {', '.join(studies) or 'nothing'}, "
                f"expected one of {', '.join(spaces)}: name a run of the same space"
            )
        for name in studies.keys() & spaces.keys():
            for number, params in best_params(studies[name], NUM_WARM):
                usable = {key: value for key, value in params.items() if probes[name].allows(key, value)}
                item = queue_item({**usable, **fixed[name]}, warm_start=f"{options.warm_start.name} trial {number}")
                if all(item["params"] != other["params"] for other in queues[name]):
                    queues[name].append(item)
    return queues


def fixed_parameters(free: Probe, asked: Mapping[str, Any], manifest: Manifest) -> dict[str, Any]:
    """What of a space is not searched: what the user fixed, and what has no use on the survey.

    That is what its task does not know, and the side of the images where the space offers to see them as they are
    stored (`image_px` None), and no smaller: a network without weights that expect a side gains nothing by larger ones.

    Args:
        free: the space, tried with nothing fixed.
        asked: what the user fixed, of any space.
        manifest: the survey's.
    """
    idle: dict[str, Any] = dict(_IDLE_FOR_VOTES) if manifest.task.kind == "votes" else {}
    sizes = getattr(free.distributions.get("image_px"), "choices", ())
    is_fixed = free.allows("weights", "none") and asked.get("weights") == "none"
    from_none = is_fixed or all(config.weights == "none" for config in free.configs)
    if from_none and not any(size is not None and size < manifest.px for size in sizes):
        idle["image_px"] = None
    idle = {name: value for name, value in idle.items() if free.allows(name, value)}
    return idle | {name: value for name, value in asked.items() if name in free.distributions}


def check_survey(manifest: Manifest, data: Path, metric: str) -> None:
    """Check that the shards are whole and that every split can do its part.

    Raises:
        GalaxyError: a split or a class without galaxies, or a shard that is missing or altered.
    """
    for split in ("train", "val", "test"):
        if not manifest.splits[split].num_rows:
            raise RunError(f"{data}: the split {split} is empty: convert the survey again with more galaxies in it")
    if manifest.task.kind == "classes":
        counts = manifest.splits["train"].class_counts
        if 0 in counts:
            name = manifest.task.names[counts.index(0)]
            raise RunError(f"{data}: the class {name!r} has no galaxy to train on: add some, or leave the class out")
        if metric == "auroc" and sum(count > 0 for count in manifest.splits["val"].class_counts) < 2:
            raise RunError(f"--objective auroc: {data} has one class in its validation split, expected two at least")
    manifest.verify(data)


def simulated_sky(console: Console) -> Path:
    """The simulated survey, drawn the first time it is asked for."""
    if not (SIMULATED_SKY / MANIFEST_NAME).is_file():
        console.print(f"no --data given: drawing a simulated sky into {SIMULATED_SKY}, once", highlight=False)
        settings = ConvertSettings(out=SIMULATED_SKY, px=SIMULATED_PX, crop=1.0, num_workers=os.cpu_count() or 1)
        convert_survey(SimulatedReader(SIMULATED_GALAXIES), settings, progress=Progress())
    return SIMULATED_SKY


def notes_on_sizes(configs: Mapping[str, Sequence[TrainConfig]], *, px: int) -> list[str]:
    """Say where images are larger or smaller than what any network will look at.

    Args:
        configs: what each space gave when it was tried.
        px: side of the shards' images, in pixels.
    """
    sizes = {name: [config.image_px or px for config in drawn] for name, drawn in configs.items()}
    notes = [
        f"{name}: every configuration enlarges the shards' images, of {px} px, to {min(asked)} px or more: if the "
        f"survey's own have more detail, convert it with --px {min(asked)} or more"
        for name, asked in sizes.items()
        if min(asked) > px
    ]
    largest = max(map(max, sizes.values()))
    if px > _MUCH_LARGER * largest:
        notes.append(
            f"no configuration looks at more than {largest} px of the shards' {px}: shards converted with "
            f"--px {largest} would do, and take less room"
        )
    return notes


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
            check_optimizer(config.optimizer)
            if config.weights != "none" and source not in weights:
                check_weights(config, weights_dir=weights_dir)
        except GalaxyError as error:
            raise type(error)(f"{space.path}: {error}") from error
        shapes.add(shape)
        weights.add(source)
