"""Fixtures for networks: true ImageNet weights."""

from pathlib import Path

import pytest
from lite0_weights import write_lite0


@pytest.fixture(scope="session")
def weights_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with tf_efficientnet_lite0.safetensors, trained on ImageNet."""
    folder = tmp_path_factory.mktemp("imagenet")
    write_lite0(folder)
    return folder
