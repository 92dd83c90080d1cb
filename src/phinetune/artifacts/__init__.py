"""Finished run folder -> files."""
