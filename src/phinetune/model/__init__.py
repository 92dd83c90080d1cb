"""Tensors only: base model, adapter, attention, loss."""
