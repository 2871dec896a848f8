"""Places on this machine that do not belong to one run."""

import os
from pathlib import Path

CACHE_VARIABLE = "GALAXY_SEARCH_CACHE"


def cache_dir() -> Path:
    """Where this machine keeps shards and files that it can fetch again.

    The folder named by `GALAXY_SEARCH_CACHE`, such as one on a node's own disk; else the user's cache.
    """
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "galaxy-search"
