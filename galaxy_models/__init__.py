"""Galaxies and networks: surveys, shards, backbones, training. Knows nothing of the search."""
