"""What can go wrong in a search, beside what can go wrong with galaxies and networks."""

import errno

from galaxy_models.errors import GalaxyError

# What a disk answers that takes no more.
FULL_DISK = (errno.ENOSPC, errno.EDQUOT)


class SpaceError(GalaxyError):
    """A space file that cannot be used."""


class RunError(GalaxyError):
    """A run folder that cannot be used, or options that contradict each other."""


class ClusterError(GalaxyError):
    """A cluster file, or what it names, that cannot be used."""


class StorageError(GalaxyError):
    """A place outside this machine that cannot be read or written."""


class UnheardError(StorageError):
    """This worker cannot find out whether another took its place."""


class NoMachineError(RunError):
    """A cluster that has no machine for a trial, yet."""


class SearchFault(GalaxyError):
    """A search that ended without a result through no mistake of the user's."""

    exit_code = 1


class TrialHungError(GalaxyError):
    """A trial took too long for one epoch."""


class PeerDiedError(Exception):
    """A process that trained together with this one is gone; the trial can go on elsewhere from its last epoch."""
