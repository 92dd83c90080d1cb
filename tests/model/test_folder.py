"""A model folder whose files contradict each other is refused before memory and time are spent on it."""

from __future__ import annotations

import json
import shutil
import struct

import pytest
import torch

from phinetune.errors import ModelError
from phinetune.model.folder import check_folder, tensor_shapes, weight_files
from phinetune.model.load import load_base
from phinetune.model.stored import stored_model


@pytest.fixture
def base(toy_base, tmp_path):
    return shutil.copytree(toy_base, tmp_path / "base")


def change(path, **values):
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def both_refuse(base):
    """What plain loading and reading weight by weight say."""
    said = []
    for read in (lambda: load_base(str(base), torch.float32, torch.device("cpu")), lambda: stored_model(base, None)):
        with pytest.raises(ModelError) as caught:
            read()
        said.append(caught.value.message)
    return said


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**9},
        {"hidden_size": 10**8},
        {"vocab_size": 2**31},
        {"hidden_size": -1},
        {"vocab_size": "many"},
        {"num_hidden_layers": 1e9},
    ],
)
def test_a_configuration_of_absurd_size_is_refused(base, values):
    change(base / "config.json", **values)
    assert all("does not fit the weights beside it" in said for said in both_refuse(base))


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/dev/zero", "model.bin", "", "missing.safetensors"])
def test_an_index_that_leads_elsewhere_is_refused(base, name):
    index = {"metadata": {}, "weight_map": {"lm_head.weight": name}}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    assert all("names" in said or "is incomplete" in said for said in both_refuse(base))


def test_layers_without_weights_are_not_made_up(base):
    change(base / "config.json", num_hidden_layers=3)
    with pytest.raises(ModelError, match="is incomplete: model.layers.2"):
        load_base(str(base), torch.float32, torch.device("cpu"))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("text", ["", "[]", "7", "{", "[" * 100_000])
def test_a_damaged_file_is_one_clear_error(base, name, text):
    (base / name).write_text(text)
    for said in both_refuse(base):
        assert str(base) in said
        assert len(said) < 600


@pytest.mark.parametrize(
    "header",
    [
        b"\xff" * 8,
        struct.pack("<Q", 2**40),
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 30) + b'{"a": {"shape": [-1]}}'.ljust(30),
        struct.pack("<Q", 60) + b'{"a": {"shape": ["many"], "dtype": "F32"}}'.ljust(60),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        b"",
    ],
)
def test_a_header_that_lies_is_damaged(tmp_path, header):
    (tmp_path / "model.safetensors").write_bytes(header)
    with pytest.raises(ModelError, match="is damaged"):
        tensor_shapes(tmp_path / "model.safetensors")


def test_an_honest_folder_passes(base):
    check_folder(base)
    assert [file.name for file in weight_files(base)] == ["model.safetensors"]
