"""The survey of all tests that run whole searches."""

from pathlib import Path

import pytest
from blobs import write_survey


@pytest.fixture(scope="session")
def survey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of blobs."""
    return write_survey(tmp_path_factory.mktemp("survey"))
