"""An adapter's configuration is taken value by value, and what plain LoRA does not have is refused."""

from __future__ import annotations

import json

import pytest
import torch
import toys
from safetensors.torch import load_file, save_file

from phinetune.errors import ModelError
from phinetune.model import lora
from phinetune.model.adapter_config import read_adapter_config
from phinetune.settings import LoraSettings


@pytest.fixture
def adapter(tmp_path):
    """A saved adapter, and a way to change its configuration."""
    lora.save(lora.attach(toys.phi(), LoraSettings(), "toy", 0), tmp_path)
    path = tmp_path / "adapter_config.json"

    def change(**values):
        path.write_text(json.dumps(json.loads(path.read_text()) | values))
        return tmp_path

    return change


def test_what_peft_writes_is_taken_whole(adapter):
    config = read_adapter_config(adapter())
    assert (config.r, config.lora_alpha, config.lora_dropout) == (16, 32, 0.05)
    assert set(config.target_modules) == {"q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"}
    assert config.base_model_name_or_path == "toy"
    assert lora.load_adapter(toys.phi(), adapter()).training is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"megatron_config": {"a": 1}, "megatron_core": "antigravity"}, "sets megatron_co"),  # a module to import
        ({"target_modules": "(a+)+$"}, "target_modules is no list of layers by name"),  # a pattern
        ({"target_modules": ["(.*)*x"]}, "target_modules is no list of layers by name"),
        ({"rank_pattern": {"(a|aa)+$": 4}}, "rank_pattern is no list of layers by name"),
        ({"exclude_modules": "(a+)+$"}, "sets exclude_modules"),
        ({"layer_replication": [[0, 1]] * 1000}, "sets layer_replication"),
        ({"modules_to_save": ["lm_head"]}, "sets modules_to_save"),
        ({"trainable_token_indices": [1]}, "sets trainable_token_indices"),
        ({"something_new": {"a": 1}}, "sets something_new"),
        ({"peft_type": "IA3"}, "is no LoRA adapter"),
        ({"peft_type": None}, "is no LoRA adapter"),
        ({"bias": "all"}, "sets bias"),
        ({"r": 10**9}, "r is no number from 1 to 65536"),
        ({"r": "16"}, "r is no number"),
        ({"r": True}, "r is no number"),
        ({"lora_alpha": float("nan")}, "lora_alpha is no number"),
        ({"lora_alpha": 10**400}, "lora_alpha is no number"),
        ({"lora_dropout": -1}, "lora_dropout is no number from 0 to 1"),
        ({"r": 60_000}, "names rank 60,000, its weights have 16"),
    ],
)  # fmt: skip
def test_what_lies_is_refused_before_anything_is_built(adapter, values, message):
    with pytest.raises(ModelError) as caught:
        lora.load_adapter(toys.phi(), adapter(**values))
    assert message in caught.value.message


@pytest.mark.parametrize("text", ["", "[]", "{", "[" * 100_000, '{"a": ' + "9" * 10_000 + "}"])
def test_what_is_no_record_is_damaged(adapter, text):
    folder = adapter()
    (folder / "adapter_config.json").write_text(text)
    with pytest.raises(ModelError, match="is damaged"):
        read_adapter_config(folder)


def test_weights_that_are_no_numbers_are_refused(adapter):
    path = adapter() / "adapter_model.safetensors"
    weights = load_file(path)
    first = next(iter(weights))
    weights[first][0, 0] = torch.nan
    save_file(weights, path)
    with pytest.raises(ModelError, match="not finite"):
        lora.load_adapter(toys.phi(), path.parent)
