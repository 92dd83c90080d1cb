"""Joins examples and model: the run itself."""
