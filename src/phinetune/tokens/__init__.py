"""Pairs -> Examples -> padding-free Batches."""
