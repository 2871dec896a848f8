"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real galaxies; tests that need it are skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GALAXY_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no real galaxies at {folder}: set GALAXY_REAL_DATA to a folder that has them")
    return folder
