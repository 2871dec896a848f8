"""Fixtures shared by all tests."""

import os
import signal
from pathlib import Path

import pytest

# Files that take many minutes: begun late, they would keep one process busy after all others have ended.
LONGEST = ("test_kill", "test_hosts")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; the order within a file stays."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


@pytest.fixture(scope="session", autouse=True)
def heard_signals() -> None:
    """Processes that tests start hear signals, also where a script's background, or `nohup`, runs the tests."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real galaxies; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GALAXY_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real galaxies at {folder}: set GALAXY_REAL_DATA to a folder that has them")
    return folder
