"""Backbones, heads, and the networks made of them."""

from galaxy_models.models.backbones import check_network, min_px
from galaxy_models.models.galaxy_model import GalaxyModel, build_model
from galaxy_models.models.pretrained import check_weights

__all__ = ["GalaxyModel", "build_model", "check_network", "check_weights", "min_px"]
