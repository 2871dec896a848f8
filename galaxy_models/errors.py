"""What can go wrong, in words a user can act on.

Every message is one string that says where, what was found, what was expected and what to do.
"""


class GalaxyError(Exception):
    """A fault that the user can mend. Command lines print it without a traceback and exit with `exit_code`."""

    exit_code = 2


class ConfigError(GalaxyError, ValueError):
    """A configuration value outside its range, or one that contradicts another."""


class DataError(GalaxyError):
    """A survey that cannot be read or converted as asked."""


class ManifestError(DataError):
    """A folder of shards whose manifest is missing, damaged or of another schema version."""


class ShardError(DataError):
    """A shard that is missing, altered, truncated or of another layout than its manifest says."""


class WeightsError(GalaxyError):
    """Initial weights that cannot be found, read or fitted to the backbone."""


class MachineError(GalaxyError):
    """A fault that is nobody's mistake, such as a full disk."""

    exit_code = 1


class OutOfMemoryError(MachineError):
    """A network that does not fit into memory, even with a single image at a time."""
