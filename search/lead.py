"""The trainer of the first of several processes: what it is told, the others do, too."""

import threading
from collections.abc import Sequence
from typing import Any

import ray

from galaxy_models.training.energy import ENERGY
from galaxy_models.training.loop import Trainer
from galaxy_models.training.ranks import PeerError, Team
from search.errors import PeerDiedError
from search.orders import ANSWER_S, answer

_WATCH_S = 0.5


class Lead(Trainer):
    """A trainer whose epochs are run in all processes of the trial."""

    _actors: Sequence[Any] = ()

    def follow(self, team: Team, actors: Sequence[Any]) -> None:
        """Name the other processes.

        Args:
            team: this process's place among them.
            actors: one `Peer` each, with a trainer of the same configuration.
        """
        self._team, self._actors = team, actors

    def run_epoch(self) -> dict[str, float]:
        """See `Trainer`.

        Raises:
            PeerDiedError: another process is gone.
        """
        orders = [actor.run_epoch.remote() for actor in self._actors]
        over = threading.Event()
        threading.Thread(target=self._watch, args=(orders, over), daemon=True).start()
        try:
            metrics = super().run_epoch()
        except Exception as error:
            raise _cause(error, orders) from None
        finally:
            over.set()
        energies = [answer(order, timeout_s=ANSWER_S) for order in orders]
        return {
            name: value + sum(one.get(name, 0.0) for one in energies) if name.endswith(ENERGY) else value
            for name, value in metrics.items()
        }

    def _watch(self, orders: Sequence[Any], over: threading.Event) -> None:
        """Tell the group of a process that is gone: on graphics cards the others would wait for it for long."""
        waiting = list(orders)
        while waiting and not over.wait(_WATCH_S):
            done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=0)
            for order in done:
                try:
                    ray.get(order)
                except Exception:
                    # Whatever it was, the epoch cannot be finished; `_cause` looks for the reason.
                    self._team.fail("fault")
                    return


def _cause(error: Exception, orders: Sequence[Any]) -> Exception:
    """What an epoch ended with, if it ended here with an error: a process that is gone, or the first fault of all."""
    for order in orders:
        try:
            answer(order, timeout_s=ANSWER_S)
        except PeerDiedError as death:
            return death
        except PeerError:
            continue
        except Exception as fault:
            # This process only saw that another could not go on.
            error = fault if isinstance(error, PeerError) else error
    return error
