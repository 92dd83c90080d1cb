"""The files of a merged folder, and how little of it is in memory at a time."""

from __future__ import annotations

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from phinetune.artifacts import merge
from phinetune.artifacts.merge import write_safetensors
from phinetune.model.merge import MergedTensor


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_file_is_one_that_safetensors_reads_and_is_made_in_pieces(tmp_path, monkeypatch, dtype):
    monkeypatch.setattr(merge, "_PIECE", 100)
    weights = {"wide": torch.randn(7, 64), "tall": torch.randn(300, 3), "vector": torch.randn(250)}
    asked = []

    def rows(weight):
        def read(start, stop):
            asked.append(weight[start:stop].numel())
            return weight[start:stop].clone()

        return read

    tensors = [MergedTensor(name, tuple(weight.shape), rows(weight)) for name, weight in weights.items()]
    sizes = list(write_safetensors(tmp_path / "model.safetensors", tensors, dtype))
    assert sizes == [weight.numel() * dtype.itemsize for weight in weights.values()]
    assert max(asked) <= 100
    read = load_file(tmp_path / "model.safetensors")
    assert read.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(read[name], weight.to(dtype))
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}  # transformers refuses a file that does not say so
