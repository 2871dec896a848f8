"""Every trial, read out of the studies into tables."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optuna
    import pandas as pd

EPOCH_PREFIX = "epoch:"
PARAM_PREFIX = "param_"


@dataclass(frozen=True)
class Trials:
    """Every trial of every study.

    Attributes:
        backbones: display names, in the order of the studies.
        table: a row a trial: backbone, trial, state, value, best_epoch, epochs, seconds, named, reason, duplicate_of
            (the trial whose recorded result it took, without an epoch of its own), promoted_from (the trial whose
            configuration it runs again to the full length), finalist_of (the same, where that trial was stopped
            and is among the best), branched_from (the trial from whose state it went on), param_*. Epochs and seconds
            are those that it trained itself.
        curves: a row a trial and trained epoch: backbone, trial, epoch, value (the objective), every metric, seconds.
        configs: configuration of each (backbone, trial) that recorded one.
        params: what the sampler chose for each (backbone, trial).
        spaces: for each backbone, every parameter that was asked for and what it may be, or could be before the
            space was changed.
        dropped: in words, why backbones left a race, which gave the others their trials.
    """

    backbones: tuple[str, ...]
    table: "pd.DataFrame"
    curves: "pd.DataFrame"
    configs: dict[tuple[str, int], dict[str, Any]]
    params: dict[tuple[str, int], dict[str, Any]]
    spaces: "dict[str, dict[str, optuna.distributions.BaseDistribution]]"
    dropped: dict[str, str]

    def row(self, backbone: str, number: int) -> dict[str, Any] | None:
        """One trial's row of the table; None if there is no such trial."""
        found = self.table[(self.table["backbone"] == backbone) & (self.table["trial"] == number)]
        return None if found.empty else {str(name): value for name, value in found.iloc[0].to_dict().items()}


def collect(studies: "Sequence[optuna.Study]") -> Trials:
    """Read every trial of every study, in the studies' order.

    The value of a complete trial is the one it was told. Of any other trial it is the best finite value
    among its epochs; NaN where there is none.

    Args:
        studies: one for each space; the user attribute `backbone` is its display name.
    """
    import optuna

    from search.entry import DUPLICATE_OF
    from search.ledger import DROPPED

    rows: list[dict[str, Any]] = []
    curves: list[dict[str, Any]] = []
    configs: dict[tuple[str, int], dict[str, Any]] = {}
    params: dict[tuple[str, int], dict[str, Any]] = {}
    spaces: dict[str, dict[str, Any]] = {}
    kinds: dict[str, set[type]] = {}
    dropped: dict[str, str] = {}
    for study in studies:
        attributes = study.user_attrs
        backbone = str(attributes.get("backbone", study.study_name))
        space = spaces.setdefault(backbone, {})
        if DROPPED in attributes:
            dropped[backbone] = str(attributes[DROPPED])
        sign = -1.0 if study.direction == optuna.study.StudyDirection.MAXIMIZE else 1.0
        for trial in study.get_trials(deepcopy=False):
            if trial.state == optuna.trial.TrialState.WAITING:
                continue
            epochs = list(_epoch_rows(trial))
            if DUPLICATE_OF not in trial.user_attrs:
                curves += [{"backbone": backbone, "trial": trial.number, **epoch} for epoch in epochs]
            rows.append({"backbone": backbone, **_trial_row(trial, epochs, sign)})
            params[backbone, trial.number] = dict(trial.params)
            if isinstance(trial.user_attrs.get("config"), dict):
                configs[backbone, trial.number] = trial.user_attrs["config"]
            for name, distribution in trial.distributions.items():
                space[name] = _widened(space.get(name), distribution)
                kinds.setdefault(name, set()).update(_value_types(distribution))
    table = _trial_table(rows, [params[row["backbone"], row["trial"]] for row in rows], kinds)
    return Trials(tuple(spaces), table, _curve_table(curves), configs, params, spaces, dropped)


def _widened(old: Any, new: Any) -> Any:
    """A distribution with the values of both; the newer one where their kinds differ."""
    import optuna

    if old is None or type(old) is not type(new) or old == new:
        return new
    if isinstance(new, optuna.distributions.CategoricalDistribution):
        return optuna.distributions.CategoricalDistribution(tuple(dict.fromkeys((*old.choices, *new.choices))))
    step = new.step if old.step == new.step and old.low == new.low else (None if isinstance(new.low, float) else 1)
    return type(new)(min(old.low, new.low), max(old.high, new.high), log=old.log and new.log, step=step)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan


def _encodable(text: str) -> str:
    """Text without the lone surrogates that Python uses for undecodable file names."""
    return text.encode("utf-8", "replace").decode()


def _epoch_rows(trial: "optuna.trial.FrozenTrial") -> Iterator[dict[str, Any]]:
    metrics: dict[int, dict[str, Any]] = {}
    for name, value in trial.user_attrs.items():
        number = name.removeprefix(EPOCH_PREFIX)
        if number != name and number.isdecimal() and isinstance(value, dict):
            metrics[int(number)] = value
    for epoch in sorted(metrics.keys() | trial.intermediate_values.keys()):
        values = {name: _number(value) for name, value in metrics.get(epoch, {}).items() if name != "epoch"}
        values["seconds"] = values.pop("epoch_s", math.nan)
        values["value"] = _number(trial.intermediate_values.get(epoch))
        yield {"epoch": epoch, **values}


def _trial_row(trial: "optuna.trial.FrozenTrial", epochs: list[dict[str, Any]], sign: float) -> dict[str, Any]:
    from search.entry import BRANCHED_AFTER, PARENT

    attributes = trial.user_attrs
    finite = [(sign * row["value"], row["epoch"]) for row in epochs if math.isfinite(row["value"])]
    best_value, best_epoch = min(finite, default=(math.nan, None))
    value = sign * best_value
    if trial.state.name == "COMPLETE" and trial.values is not None:
        value = _number(trial.values[0])
    timed = [row["seconds"] for row in epochs if math.isfinite(row["seconds"])]
    copied, finalist_of = attributes.get("duplicate_of"), attributes.get("finalist_of")
    return {
        "trial": trial.number,
        "state": trial.state.name,
        "value": value,
        "best_epoch": attributes.get("best_epoch", best_epoch),
        "epochs": epochs[-1]["epoch"] - attributes.get(BRANCHED_AFTER, 0) if epochs and copied is None else 0,
        "seconds": 0.0 if copied is not None else _number(attributes.get("seconds", sum(timed) if timed else math.nan)),
        "named": bool(attributes.get("named", False)),
        "reason": _encodable(str(attributes.get("reason", ""))),
        "duplicate_of": copied,
        "promoted_from": attributes.get("promoted_from", finalist_of),
        "finalist_of": finalist_of,
        "branched_from": attributes.get(PARENT),
    }


def _value_types(distribution: object) -> set[type]:
    choices = getattr(distribution, "choices", None)
    if choices is not None:
        return {type(choice) for choice in choices}
    return {int if type(distribution).__name__.startswith("Int") else float}


def _trial_table(
    rows: list[dict[str, Any]], params: list[dict[str, Any]], kinds: dict[str, set[type]]
) -> "pd.DataFrame":
    import pandas as pd

    types = {
        "backbone": "string", "trial": "int64", "state": "string", "value": "float64", "best_epoch": "Int64",
        "epochs": "int64", "seconds": "float64", "named": "bool", "reason": "string", "duplicate_of": "Int64",
        "promoted_from": "Int64", "finalist_of": "Int64", "branched_from": "Int64",
    }  # fmt: skip
    columns = {name: pd.Series([row[name] for row in rows], dtype=kind) for name, kind in types.items()}
    for name in sorted(kinds):
        columns[PARAM_PREFIX + name] = _param_column([(name in of, of.get(name)) for of in params], kinds[name])
    return pd.DataFrame(columns)


def _param_column(values: list[tuple[bool, Any]], kinds: set[type]) -> "pd.Series[Any]":
    """One column of one type: its own where all choices share one, else text; missing where not suggested.

    The type follows from the space, not from what was drawn, so it is the same early and late in a search.
    """
    import pandas as pd

    dtype = "string"
    if kinds == {bool}:
        dtype = "boolean"
    elif kinds == {int}:
        dtype = "Int64"
    elif kinds <= {int, float}:
        dtype = "Float64"
    cells = [(_encodable(str(value)) if dtype == "string" else value) if given else pd.NA for given, value in values]
    return pd.Series(cells, dtype=dtype)


def _curve_table(rows: list[dict[str, Any]]) -> "pd.DataFrame":
    import pandas as pd

    first = ("backbone", "trial", "epoch", "value")
    metrics = sorted({name for row in rows for name in row} - {*first, "seconds"})
    columns: dict[str, Any] = {
        "backbone": pd.Series([row["backbone"] for row in rows], dtype="string"),
        "trial": pd.Series([row["trial"] for row in rows], dtype="int64"),
        "epoch": pd.Series([row["epoch"] for row in rows], dtype="int64"),
    }
    for name in ("value", *metrics, "seconds"):
        columns[name] = pd.Series([row.get(name, math.nan) for row in rows], dtype="float64")
    return pd.DataFrame(columns)
