"""The survey of all tests that run whole searches."""

from pathlib import Path

import pytest
from blobs import write_survey

# With two processes these files run beside the others, each in one of them, so that searches do not crowd.
_TOGETHER = {"test_kill": "killed", "test_going_on": "killed"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the searches of a file, and of both halves of the folder, one after the other."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.xdist_group(_TOGETHER.get(item.path.stem, "others")))


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of blobs."""
    return write_survey(tmp_path_factory.mktemp("survey"))
