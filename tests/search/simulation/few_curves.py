"""Learning curves small enough to work out by hand, and a stack that a test drives."""

from typing import Any

import pandas as pd

from search.simulation.curves import Curves, make_curves


def table(values: dict[str, list[float]], *, seconds: float = 1.0) -> pd.DataFrame:
    """A table of curves by configuration; `x` is the parameter: 0.0, 1.0, 2.0 ... in their order."""
    return pd.DataFrame(
        [
            {"config": name, "epoch": epoch, "value": value, "seconds": seconds, "x": float(number)}
            for number, (name, curve) in enumerate(values.items())
            for epoch, value in enumerate(curve, start=1)
        ]
    )


def curves(values: dict[str, list[float]], *, seconds: float = 1.0, **terms: Any) -> Curves:
    """The same, checked."""
    terms = {"where": "here", "objective": "value", "direction": "min", "params": ()} | terms
    return make_curves(table(values, seconds=seconds), **terms)


def bowl(num: int = 40, epochs: int = 9) -> Curves:
    """Curves that end the lower the nearer `x` is to the middle, and keep their order from the first epoch."""
    middle = (num - 1) / 2
    return curves({str(x): [abs(x - middle) / num + 1 / epoch for epoch in range(1, epochs + 1)] for x in range(num)})
