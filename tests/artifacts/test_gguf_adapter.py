"""The adapter alone in a .gguf file: what llama.cpp computes from it is what the adapter does."""

from __future__ import annotations

import gguf
import pytest
import torch
import toys
from peft import LoraConfig, get_peft_model

from phinetune.artifacts.gguf import GgufFacts
from phinetune.artifacts.gguf_adapter import write_gguf_adapter
from phinetune.errors import ModelError
from phinetune.model import lora
from phinetune.model.adapter_config import read_adapter_config
from phinetune.model.gguf_names import NAMES, deinterleave
from phinetune.model.shape import read_shape
from phinetune.recipe import default_recipe

FACTS = GgufFacts("toy", None, None, "", default_recipe("toy"))
LAYERS = {"phi": ["q_proj", "dense", "fc2"], "llama": ["q_proj", "k_proj", "down_proj"]}


def _adapter(folder, kind="llama", **changes):
    """An adapter with numbers in it, saved by PEFT; the model it stands on, and what its folder holds."""
    base = getattr(toys, kind)()
    settings = {"r": 4, "lora_alpha": 12, "target_modules": LAYERS[kind]} | changes
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **settings))
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    shape = read_shape(base.config.to_dict(), "toy")
    return model, read_adapter_config(folder), lora.read_weights(folder), shape


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("phi", {}),
        ("llama", {}),
        ("llama", {"use_rslora": True}),
        ("llama", {"rank_pattern": {"down_proj": 2}}),
        ("llama", {"alpha_pattern": {"q_proj": 3}, "use_rslora": True}),
    ],
)
def test_alpha_over_r_times_b_a_is_the_change_of_every_layer(tmp_path, kind, changes):
    model, config, weights, shape = _adapter(tmp_path, kind, **changes)
    write_gguf_adapter(tmp_path / "a.gguf", config, weights, shape, FACTS, "f32")
    file = gguf.GGUFReader(tmp_path / "a.gguf")
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in file.tensors}
    alpha = file.get_field(gguf.Keys.Adapter.LORA_ALPHA).contents()
    names, heads = NAMES["phi2" if kind == "phi" else "llama"], {"q_proj": shape.heads, "k_proj": shape.kv_heads}
    adapted = {n: m for n, m in model.get_base_model().named_modules() if hasattr(m, "lora_A")}
    assert len(tensors) == 2 * len(adapted) == 2 * 2 * len(LAYERS[kind])
    for name, layer in adapted.items():
        down, up = (tensors[f"{names.to_gguf(f'{name}.weight')}.lora_{half}"] for half in "ab")
        change = alpha / len(down) * up @ down
        if names.is_interleaved(f"{name}.weight"):
            change = deinterleave(change, heads[name.rpartition(".")[2]])
        torch.testing.assert_close(change, layer.get_delta_weight("default"), rtol=1e-4, atol=1e-6)


def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path):
    _, config, weights, shape = _adapter(tmp_path)
    out = tmp_path / "out"

    def refused(weights=weights, config=config, shape=shape):
        with pytest.raises(ModelError) as caught:
            write_gguf_adapter(out / "a.gguf", config, weights, shape, FACTS)
        return caught.value.message

    first = next(iter(weights))
    other = read_shape(toys.phi().config.to_dict(), "toy")
    assert "down_proj.lora_A.weight: the base model, of the kind phi, has no such layer" in refused(shape=other)
    fewer = read_shape(toys.llama(num_hidden_layers=1).config.to_dict(), "toy")
    assert "model.layers.1." in refused(shape=fewer)
    more = read_shape(toys.llama(num_hidden_layers=3).config.to_dict(), "toy")
    assert "model.layers.2.mlp.down_proj: it has nothing for this layer" in refused(shape=more)
    config.target_modules = {"q_proj", "k_proj"}
    assert "down_proj: its configuration does not name it" in refused()
    config.target_modules = {"q_proj", "k_proj", "down_proj"}
    assert "its other half is missing" in refused({n: w for n, w in weights.items() if n != first})
    assert "beside a layer of" in refused(weights | {first: torch.zeros(4, 7)})
    assert "not finite" in refused(weights | {first: weights[first] * torch.inf})
    assert "changes no layer" in refused({})
    _, config, weights, shape = _adapter(tmp_path / "dora", use_dora=True)
    assert "DoRA" in refused(weights, config, shape)
    assert not out.exists() or not list(out.iterdir())
