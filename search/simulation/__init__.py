"""Searches replayed on recorded learning curves, under a virtual clock."""
