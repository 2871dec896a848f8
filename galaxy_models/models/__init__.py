"""Backbones, heads and initial weights."""
