"""Which kind of machine Ray's autoscaler asks for: spot if it can be had, else on demand.

Ray by itself asks for one of several equal kinds by its name alone, again and again, also when the cloud has none left.
`clusters/node_env.sh` names `score` to it.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Score = tuple[bool, bool, int, float, float, bool]


def score(
    node_resources: Mapping[str, float],
    resources: Sequence[Mapping[str, float]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> Score | None:
    """Say how well a kind of node suits what waits; Ray adds a node of the kind with the highest score.

    Args:
        node_resources: what a node of this kind has: GPUs, processors, bytes of memory.
        resources: what each waiting trial asks for.
        node_type: the kind's name in the cluster file; those that end in "spot" win between equals.
        node_availability_summary: Ray's record of each kind whose last launch failed. It forgets it after half an hour.

    Returns:
        Ray's own score with two terms more, after the first and at the end; nothing, if nothing that waits fits.
    """
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer

    usual = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if usual is None:
        return None
    spares_gpus, *fit = usual
    record = node_availability_summary.node_availabilities.get(node_type)
    can_be_had = record is None or record.is_available
    return (spares_gpus, can_be_had, *fit, node_type.endswith("spot"))
