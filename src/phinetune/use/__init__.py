"""Finished run folder -> answers."""
