"""Loads a space file and tries it out before anything is spent on it.

A space file is Python. It defines `space(trial) -> TrainConfig`, and may name configurations to run first:
`named = [{"learning_rate": 1e-3, ...}, ...]`, each a dictionary of the space's parameter names and values. Where the
user fixes `weights`, those named for other ones are left out. Only the driver loads it; workers receive the
configurations it returned.
"""

import hashlib
import sys
import traceback
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import TYPE_CHECKING, Any

from galaxy_models.cli import EndedBySignal
from galaxy_models.config import TrainConfig
from galaxy_models.errors import GalaxyError
from search.errors import SpaceError

if TYPE_CHECKING:
    import optuna
    from optuna.distributions import BaseDistribution

# Enough draws that a branch taken once in twenty is seen almost surely: 0.95 ** 100 = 0.6 %.
NUM_PROBES = 100


@dataclass(frozen=True)
class Space:
    """One backbone's search space.

    Attributes:
        name: the file's stem, which also names its study.
        path: where the file lies.
        suggest: the file's function.
        named: configurations that run first, as parameter names and values.
        digest: of the file's text.
    """

    name: str
    path: Path
    suggest: Callable[["optuna.Trial"], TrainConfig]
    named: tuple[dict[str, Any], ...]
    digest: str

    def named_with(self, fixed: Mapping[str, Any]) -> list[dict[str, Any]]:
        """Named configurations as they run: with the user's values, and without those named for other `weights`.

        If all were named for others all are kept: settings picked for other weights are better than random ones.

        Args:
            fixed: parameters that the user fixed, by name.
        """
        kept = self.named
        if "weights" in fixed:
            weights = fixed["weights"]
            kept = tuple(item for item in self.named if item.get("weights", weights) == weights) or self.named
        return [{**item, **fixed} for item in kept]

    def config(self, trial: "optuna.Trial") -> TrainConfig:
        """Ask the space file for one configuration.

        Raises:
            SpaceError: the file's function failed or returned something else than a TrainConfig.
        """
        try:
            config = self.suggest(trial)
        except GalaxyError as error:
            raise SpaceError(f"{self.path}: space() made a wrong configuration: {error}") from error
        except EndedBySignal:
            raise
        except (Exception, SystemExit) as error:
            raise SpaceError(f"{self.path}: {_where(error, self.path)}: mend space() and run again") from error
        if not isinstance(config, TrainConfig):
            raise SpaceError(f"{self.path}: space() returned {config!r:.200}, expected a TrainConfig: return one")
        return config

    def config_of(self, params: Mapping[str, Any]) -> TrainConfig:
        """The configuration that parameters mean.

        Args:
            params: all of them, by name.

        Raises:
            SpaceError: as `config`, or one is missing.
        """
        import optuna

        return self.config(optuna.trial.FixedTrial(dict(params)))  # type: ignore[arg-type]


def _where(error: BaseException, path: Path) -> str:
    lines = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path.resolve())
    ]
    place = f"line {lines[-1]}: " if lines else ""
    return f"{place}{type(error).__name__}: {error}"


def check_space_file(path: Path) -> None:
    """Check that a space file is there, which costs nothing.

    Raises:
        SpaceError: it is not.
    """
    if not path.is_file():
        raise SpaceError(f"{path}: no such file, expected a space file such as spaces/resnet50.py: check --space")


def load_space(path: Path) -> Space:
    """Load a space file.

    Raises:
        SpaceError: the file is missing, is not Python, fails when loaded, or defines no `space`.
    """
    check_space_file(path)
    if path.suffix != ".py":
        raise SpaceError(f"{path}: not a Python file, expected a space file that ends in .py: check --space")
    text = path.read_bytes()
    module = _load_module(path.resolve())
    suggest = getattr(module, "space", None)
    if not callable(suggest):
        raise SpaceError(f"{path}: defines no function 'space', expected `def space(trial) -> TrainConfig`: add it")
    named = getattr(module, "named", [])
    if not isinstance(named, list | tuple) or not all(isinstance(item, dict) for item in named):
        raise SpaceError(f"{path}: 'named' is {named!r:.200}, expected a list of dictionaries of parameter values")
    return Space(path.stem, path, suggest, tuple(dict(item) for item in named), hashlib.sha256(text).hexdigest())


class _UncachedLoader(SourceFileLoader):
    """Compiles a file each time: Python's cache takes one of the same size and second for what it was."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def _load_module(path: Path) -> ModuleType:
    # Registered under a name of its own: two spaces may share a stem with an installed package.
    name = f"_galaxy_space_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}_{path.stem}"
    module = sys.modules[name] = ModuleType(name)
    module.__file__ = str(path)
    try:
        _UncachedLoader(name, str(path)).exec_module(module)
    except SyntaxError as error:
        raise SpaceError(f"{path}: line {error.lineno or 1}: {error.msg}: mend the syntax") from error
    except EndedBySignal:
        raise
    except (Exception, SystemExit) as error:
        raise SpaceError(f"{path}: cannot be loaded: {_where(error, path)}") from error
    return module


def fixed_sampler(sampler: "optuna.samplers.BaseSampler", fixed: Mapping[str, Any]) -> "optuna.samplers.BaseSampler":
    """Wrap a sampler so that some parameters keep a value the user gave."""
    import optuna

    if not fixed:
        return sampler
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.PartialFixedSampler(dict(fixed), sampler)


@dataclass(frozen=True)
class Probe:
    """What came out when a space was tried.

    Attributes:
        configs: the distinct configurations, the named ones first.
        distributions: where the space's parameters are drawn from, by name.
    """

    configs: tuple[TrainConfig, ...]
    distributions: Mapping[str, "BaseDistribution"]

    def allows(self, name: str, value: Any) -> bool:
        """Whether the space has this parameter, and the value is one that it may take."""
        distribution = self.distributions.get(name)
        try:
            return distribution is not None and distribution._contains(distribution.to_internal_repr(value))
        except (ValueError, TypeError):
            return False


def probe_space(space: Space, *, seed: int, fixed: Mapping[str, Any]) -> Probe:
    """Try a space out: its named configurations, then random ones.

    Args:
        space: the space.
        seed: of the random configurations.
        fixed: parameters that the user fixed, by name.

    Raises:
        SpaceError: any of them is wrong, a named or fixed parameter does not exist, or the space gives another
            configuration when it is called again with the same values.
    """
    if fixed:
        _check_fixed(space, fixed, _probe(space, seed, {}))
    return _probe(space, seed, fixed)


def _probe(space: Space, seed: int, fixed: Mapping[str, Any]) -> Probe:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=fixed_sampler(optuna.samplers.RandomSampler(seed=seed), fixed))
    named = space.named_with(fixed)
    for item in named:
        study.enqueue_trial(item)
    configs: list[TrainConfig] = []
    distributions: dict[str, BaseDistribution] = {}
    for index in range(len(named) + NUM_PROBES):
        trial = study.ask()
        with warnings.catch_warnings():
            # Optuna only warns of a named value outside its parameter's range.
            warnings.simplefilter("error", UserWarning)
            config = space.config(trial)
        distributions |= trial.distributions
        _check_repeatable(space, trial, config)
        if index < len(named) and not fixed:
            _check_named(space, index, trial)
        if config not in configs:
            configs.append(config)
    return Probe(tuple(configs), distributions)


def _check_fixed(space: Space, fixed: Mapping[str, Any], free: Probe) -> None:
    for name, value in fixed.items():
        if name not in free.distributions:
            known = ", ".join(sorted(free.distributions))
            raise SpaceError(f"--fix {name}: {space.path} has no such parameter, expected one of {known}")
        if not free.allows(name, value):
            expected = _in_words(free.distributions[name])
            raise SpaceError(f"--fix {name}: got {value!r}, expected {expected}, as in {space.path}")


def _in_words(distribution: "BaseDistribution") -> str:
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return f"one of {', '.join(map(repr, choices))}"
    step = getattr(distribution, "step", None)
    steps = f" in steps of {step:g}" if step not in (None, 1) else ""
    kind = "a whole number" if type(distribution).__name__.startswith("Int") else "a number"
    return f"{kind} from {getattr(distribution, 'low', None)} to {getattr(distribution, 'high', None)}{steps}"


def _check_repeatable(space: Space, trial: "optuna.Trial", config: TrainConfig) -> None:
    import optuna

    same = optuna.trial.FixedTrial(trial.params, number=trial.number)
    again = space.config(same)  # type: ignore[arg-type]
    if same.distributions != trial.distributions:
        raise SpaceError(
            f"{space.path}: space() asked for other parameters or ranges when it was called again with the same values "
            f"{trial.params}: draw nothing at random and keep no state in it"
        )
    if replace(again, seed=config.seed) != config:
        raise SpaceError(
            f"{space.path}: space() gave two different configurations for the same values {trial.params}: "
            "draw nothing at random and keep no state in it"
        )


def _check_named(space: Space, index: int, trial: "optuna.Trial") -> None:
    unknown = sorted(set(space.named[index]) - set(trial.params))
    if unknown:
        raise SpaceError(
            f"{space.path}: named[{index}] gives {unknown[0]!r}, but space() does not ask for it there, "
            f"expected some of {', '.join(sorted(trial.params))}"
        )
