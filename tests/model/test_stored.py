"""Weights read one at a time are those of the model that is loaded whole, with its adapter merged."""

from __future__ import annotations

import json

import pytest
import torch
import toys

from phinetune.errors import ModelError
from phinetune.model import lora
from phinetune.model.merge import merged_tensors
from phinetune.model.stored import stored_model
from phinetune.settings import LoraSettings


def _adapter(base: torch.nn.Module, folder, **changes: object):
    model = lora.attach(base, LoraSettings(**{"r": 4, "alpha": 16} | changes), "toy", seed=1)
    for _, parameter in lora.trainable(model):
        torch.nn.init.normal_(parameter, std=0.1)
    lora.save(model, folder)
    return model


@pytest.mark.parametrize("make", [toys.phi, toys.llama])
def test_every_weight_is_that_of_the_merged_model(make, tmp_path):
    toys.save(tmp_path / "base", make())
    model = _adapter(make(), tmp_path / "adapter")
    expected = {tensor.name: tensor.make() for tensor in merged_tensors(model)}
    stored = stored_model(tmp_path / "base", tmp_path / "adapter")
    assert [tensor.name for tensor in stored.tensors] == list(expected)
    for tensor in stored.tensors:
        weight = tensor.make()
        assert tensor.shape == tuple(weight.shape)
        assert weight.dtype == torch.float32
        torch.testing.assert_close(weight, expected[tensor.name], rtol=0, atol=1e-6)


def test_shards_are_read_and_a_base_without_adapter_is_itself(tmp_path):
    base = toys.phi()
    base.save_pretrained(tmp_path, max_shard_size="100KB")
    toys.tokenizer().save_pretrained(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    for tensor in stored_model(tmp_path, None).tensors:
        assert torch.equal(tensor.make(), base.get_parameter(tensor.name))


def test_what_is_not_plain_is_left_to_loading_it_whole(tmp_path):
    toys.save(tmp_path / "base", toys.phi())
    _adapter(toys.phi(), tmp_path / "adapter")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": True}))
    assert stored_model(tmp_path / "base", tmp_path / "adapter") is None
    config.write_text(json.dumps(json.loads(config.read_text()) | {"use_rslora": False}))
    assert stored_model(tmp_path / "base", tmp_path / "adapter") is not None


@pytest.mark.parametrize(
    "make", [lambda: toys.phi(num_hidden_layers=1), lambda: toys.phi(num_hidden_layers=3), toys.llama]
)
def test_an_adapter_of_another_model_is_refused_though_each_of_its_weights_has_a_place(make, tmp_path):
    toys.save(tmp_path / "base", toys.phi())
    _adapter(make(), tmp_path / "other")
    with pytest.raises(ModelError, match="does not fit this base model|another kind of model"):
        stored_model(tmp_path / "base", tmp_path / "other")
