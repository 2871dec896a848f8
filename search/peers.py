"""The further processes of a trial that trains in several: actors in the bundles of the trial's placement group.

The trial's own process is the first; it starts the others, keeps them between trials as it is kept itself, and owns
them, so that Ray ends them with it. Orders go through Ray; what training exchanges goes through torch's own group.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import psutil
import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from galaxy_models.config import TrainConfig
from galaxy_models.training.energy import ENERGY
from search.options import Places
from search.orders import answer
from search.shards import Shards

if TYPE_CHECKING:
    from galaxy_models.training.loop import Trainer
    from galaxy_models.training.ranks import Team
    from galaxy_models.training.runtime import Runtime
    from galaxy_models.training.survey import SurveyData

# As few nodes as hold the processes: gradients cross the network after every batch.
STRATEGY = "PACK"


def bundles(places: Places) -> list[dict[str, float]]:
    """What each process of a trial reserves, the first one's first."""
    one = {"CPU": float(places.threads), "GPU": places.gpus_per_trial / places.processes}
    return [{name: amount for name, amount in one.items() if amount} for _ in range(places.processes)]


class Rooms:
    """Runs tasks on the places of trials; one of several processes is in a placement group of its own.

    Args:
        places: what each task reserves, the processes that it starts included.
    """

    def __init__(self, places: Places) -> None:
        self._places = places
        self._groups: dict[Any, PlacementGroup] = {}

    def start(self, work: Callable[..., Any], *arguments: Any) -> Any:
        """Let a function run as soon as there is room; gives Ray's reference to its result."""
        places = self._places
        # Our own retries: Ray's would repeat a process that was killed for want of memory for ever.
        if places.processes == 1:
            task = ray.remote(num_cpus=places.cpus_per_trial, num_gpus=places.gpus_per_trial, max_retries=0)(work)
            return task.remote(*arguments)
        group = placement_group(bundles(places), strategy=STRATEGY)
        first = bundles(places)[0]
        task = ray.remote(
            num_cpus=first["CPU"],
            num_gpus=first.get("GPU", 0),
            max_retries=0,
            scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0),
        )(work)
        reference = task.remote(*arguments)
        self._groups[reference] = group
        return reference

    def leave(self, reference: Any) -> None:
        """Give back what a task had that is over; whatever it started ends with that."""
        group = self._groups.pop(reference, None)
        if group is not None:
            remove_placement_group(group)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a process is to train together with others.

    Attributes:
        config: the trial's configuration.
        shards: where the survey lies for every machine.
        runtime: where each process computes.
        micro_batch: see `Trainer`.
        host: address at which the processes meet.
        port: of the store there.
        index: the process's number, 0 for the first.
        num: how many processes there are.
    """

    config: TrainConfig
    shards: Shards
    runtime: "Runtime"
    micro_batch: int | None
    host: str
    port: int
    index: int
    num: int


class Peer:
    """An actor: one of the further processes of a trial."""

    def __init__(self) -> None:
        # While the first process does the same.
        import galaxy_models.training.loop  # noqa: F401

        self._survey: SurveyData | None = None
        self._team: Team | None = None
        self._trainer: Trainer | None = None

    def prepare(self, part: Part) -> None:
        """Make the next trial's trainer."""
        from galaxy_models.training.loop import Trainer
        from galaxy_models.training.ranks import Team, join_store
        from galaxy_models.training.survey import SurveyData

        # Freed before the next is made: a GPU need not hold two networks.
        self._trainer = None
        self.leave()
        use_own_interface()
        data = part.shards.local()
        if self._survey is None or self._survey.directory != data:
            self._survey = SurveyData(data)
        self._team = Team(join_store(part.host, part.port, part.num), index=part.index, num=part.num)
        self._trainer = Trainer(
            part.config, self._survey, runtime=part.runtime, micro_batch=part.micro_batch, ranks=self._team
        )

    def leave(self) -> None:
        """Leave the group of the trial that is over."""
        if self._team is not None:
            self._team.close()
            self._team = None

    def run_epoch(self) -> dict[str, float]:
        """Do this process's part of an epoch; the energy that it took, where that can be measured."""
        assert self._trainer is not None
        metrics = self._trainer.run_epoch()
        return {name: value for name, value in metrics.items() if name.endswith(ENERGY)}


class Peers:
    """The further processes, seen from the first, which runs in the first bundle of a placement group.

    Args:
        num: how many processes a trial has, the first included.
        shards: where the survey lies for every machine.
    """

    def __init__(self, num: int, shards: Shards) -> None:
        self._shards = shards
        placement: PlacementGroup = ray.util.get_current_placement_group()
        self._num = num
        self._team: Team | None = None
        self._actors = []
        for index in range(1, num):
            own = placement.bundle_specs[index]
            actor = ray.remote(Peer).options(
                num_cpus=own.get("CPU", 0),
                num_gpus=own.get("GPU", 0),
                scheduling_strategy=PlacementGroupSchedulingStrategy(placement, placement_group_bundle_index=index),
            )
            self._actors.append(actor.remote())

    def lead(
        self,
        config: TrainConfig,
        survey: "SurveyData",
        *,
        runtime: "Runtime",
        on_first_step: Callable[[], None] | None = None,
        micro_batch: int | None = None,
    ) -> "Trainer":
        """Make a trainer in every process; arguments are those of `Trainer`.

        Returns:
            The first process's. To run an epoch with it runs one in all of them.

        Raises:
            GalaxyError: as `Trainer` raises, here or in another process.
            PeerDiedError: another process is gone.
        """
        from galaxy_models.training.ranks import Team, open_store
        from search.lead import Lead

        # Kept until the others have left it: its store goes with it.
        previous = self._team
        if previous is not None:
            previous.close()
        use_own_interface()
        host = ray.util.get_node_ip_address()
        store = open_store(host, self._num)
        part = Part(
            config=config,
            shards=self._shards,
            runtime=runtime,
            micro_batch=micro_batch,
            host=host,
            port=store.port,
            index=0,
            num=self._num,
        )
        others = enumerate(self._actors, start=1)
        orders = [actor.prepare.remote(replace(part, index=index)) for index, actor in others]
        self._team = Team(store, index=0, num=self._num)
        trainer = Lead(
            config, survey, runtime=runtime, on_first_step=on_first_step, micro_batch=micro_batch, ranks=self._team
        )
        for order in orders:
            answer(order)
        trainer.follow(self._team, self._actors)
        return trainer

    def end(self) -> None:
        """End the further processes."""
        if self._team is not None:
            self._team.close()
            self._team = None
        for actor in self._actors:
            ray.kill(actor)


@contextmanager
def trainers(num: int, shards: Shards) -> Iterator[Callable[..., "Trainer"]]:
    """What makes trainers in this task: `Trainer` itself, or for several processes `Peers.lead`."""
    # Started first, so that all processes load torch side by side.
    peers = Peers(num, shards) if num > 1 else None
    from galaxy_models.training.loop import Trainer

    if peers is None:
        yield Trainer
        return
    try:
        yield peers.lead
    finally:
        peers.end()


def use_own_interface() -> None:
    """Let torch's processes meet at the address by which Ray knows this node, not at what its name stands for."""
    address = ray.util.get_node_ip_address()
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address == address for one in addresses):
            os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
            os.environ.setdefault("NCCL_SOCKET_IFNAME", name)
