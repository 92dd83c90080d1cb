from __future__ import annotations

import gguf
import pytest
import torch
import toys
from transformers import PreTrainedModel

from phinetune.model.gguf_names import ARCHITECTURES, NAMES, deinterleave, interleave

BIASED = {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": False}


@pytest.mark.parametrize("model", [toys.phi(), toys.llama(**BIASED)], ids=["phi", "llama"])
def test_every_parameter_has_a_name_both_ways(model: PreTrainedModel) -> None:
    names = NAMES[ARCHITECTURES[model.config.model_type]]
    for name, _ in model.named_parameters():
        assert names.to_transformers(names.to_gguf(name)) == name
    with pytest.raises(KeyError):
        names.to_gguf("model.layers.0.self_attn.k_layernorm.weight")
    with pytest.raises(KeyError):
        names.to_transformers("blk.0.attn_k_norm.weight")


@pytest.mark.parametrize("architecture", NAMES)
def test_the_names_are_those_of_llama_cpp(architecture: str) -> None:
    number = {name: id for id, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    theirs = gguf.get_tensor_name_map(number, 2)
    names = NAMES[architecture]
    known = {gguf.TENSOR_NAMES[tensor].format(bid=1) for tensor in gguf.MODEL_TENSORS[number]}
    for module in [*names.outer, *(f"model.layers.1.{part}" for part in names.block)]:
        ours = names.to_gguf(f"{module}.weight").removesuffix(".weight")
        assert ours in known
        # Its own table lacks some of the present names of Phi's modules.
        assert theirs.get_name(module) in (ours, None)


def test_interleaving_pairs_the_halves_of_each_head() -> None:
    rows = torch.arange(12)[:, None]
    expected = [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]
    assert interleave(rows, heads=2).flatten().tolist() == expected
    assert interleave(rows.flatten(), heads=2).tolist() == expected


@pytest.mark.parametrize("heads", [1, 3, 9])
def test_interleaving_can_be_undone(heads: int) -> None:
    weight = torch.randn(144, 5)
    assert not torch.equal(interleave(weight, heads), weight)
    assert torch.equal(deinterleave(interleave(weight, heads), heads), weight)


def test_only_the_llama_architecture_is_interleaved() -> None:
    name = "model.layers.0.self_attn.k_proj.weight"
    assert {architecture: names.is_interleaved(name) for architecture, names in NAMES.items()} == {
        "phi2": False,
        "llama": True,
        "qwen2": False,
    }
    assert not NAMES["llama"].is_interleaved("model.layers.0.self_attn.v_proj.weight")
