"""The survey of all tests that run whole searches."""

from pathlib import Path

import pytest
from blobs import write_survey

# With several processes these files run side by side, so that few searches run at a time. Most of a small search is
# waiting: for processes to start, and for them to end.
_GROUPS = {"test_kill": "killed", "test_going_on": "story", "test_run": "story"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the searches of a group one after the other."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(_GROUPS.get(item.path.stem, "others")))


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of blobs."""
    return write_survey(tmp_path_factory.mktemp("survey"))
