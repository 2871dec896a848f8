"""Tunes every backbone on equal terms and compares them."""
