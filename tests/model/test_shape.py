from __future__ import annotations

import json

import pytest
import torch
import toys
import transformers
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from phinetune.errors import ModelError, SettingsError
from phinetune.model import lora
from phinetune.model.shape import adapter_shape, read_shape
from phinetune.settings import LoraSettings

CONFIGS = {
    "phi": transformers.PhiConfig(hidden_size=96, num_attention_heads=4, intermediate_size=200, num_hidden_layers=3),
    "phi_grouped": transformers.PhiConfig(hidden_size=96, num_attention_heads=4, num_key_value_heads=2),
    "phi_tied": transformers.PhiConfig(hidden_size=96, num_attention_heads=4, tie_word_embeddings=True),
    "smollm2": transformers.LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        tie_word_embeddings=True,
    ),
    "llama_with_biases": transformers.LlamaConfig(
        hidden_size=64, num_attention_heads=4, head_dim=24, intermediate_size=100, attention_bias=True, mlp_bias=True
    ),
    "mistral": transformers.MistralConfig(hidden_size=64, num_attention_heads=4, num_key_value_heads=2),
    "qwen2": transformers.Qwen2Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2
    ),
    "qwen3": transformers.Qwen3Config(
        hidden_size=64, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2
    ),
}


def _model(config):
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_module_counts_what_the_real_one_holds(name):
    config = CONFIGS[name]
    model, shape = _model(config), read_shape(config.to_dict(), name)
    counted = dict.fromkeys(shape.modules(), 0)
    for path, parameter in model.named_parameters():
        module = path.split(".")[-2]
        counted[module if module in counted else "norms"] += parameter.numel()
    assert counted == shape.modules()
    assert shape.parameters == model.num_parameters()


@pytest.mark.parametrize("wanted", ["all", "attention", "minimal", "q_proj,k_proj"])
@pytest.mark.parametrize("make", [toys.phi, toys.llama])
def test_the_adapter_counts_what_peft_attaches(make, wanted):
    model = make()
    shape = read_shape(model.config.to_dict(), "toy")
    attached = lora.attach(model, LoraSettings(r=3, target_modules=wanted), "toy", seed=0)
    assert adapter_shape(shape, 3, wanted).parameters == lora.count_parameters(attached)[0]


def test_phi2_has_its_published_sizes():
    shape = read_shape(
        {
            "model_type": "phi",
            "hidden_size": 2560,
            "intermediate_size": 10240,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "vocab_size": 51200,
        },
        "Phi-2",
    )
    assert shape.parameters == 2_779_683_840
    assert adapter_shape(shape, 16, "all").parameters == 23_592_960
    assert adapter_shape(shape, 16, ["q_proj", "k_proj", "v_proj"]).parameters == 7_864_320


@pytest.mark.skipif(not toys.PHI2.is_dir(), reason="Phi-2's real configuration is not here")
def test_phi2s_own_config_file_says_the_same():
    config = json.loads((toys.PHI2 / "config.json").read_text())
    assert read_shape(config, "Phi-2").parameters == 2_779_683_840


def test_an_unknown_family_is_counted_like_a_llama_and_says_so():
    config = CONFIGS["smollm2"].to_dict() | {"model_type": "newcomer"}
    shape = read_shape(config, "newcomer")
    assert shape.parameters == 134_515_008
    assert not shape.is_counted
    assert not shape.is_fast


@pytest.mark.parametrize("wrong", [{"hidden_size": None}, {"num_hidden_layers": "12"}, {"vocab_size": 0}])
def test_a_damaged_config_is_named_with_its_entry(wrong):
    with pytest.raises(ModelError, match=next(iter(wrong))):
        read_shape(CONFIGS["phi"].to_dict() | wrong, "config.json")


def test_experts_and_unknown_layers_are_refused():
    with pytest.raises(ModelError, match="mixture of experts"):
        read_shape(CONFIGS["mistral"].to_dict() | {"num_local_experts": 8}, "it")
    with pytest.raises(SettingsError, match="no layer called o_proj"):
        adapter_shape(read_shape(CONFIGS["phi"].to_dict(), "it"), 16, "q_proj,o_proj")


def test_peft_agrees_on_full_size_phi2():
    config = transformers.PhiConfig(
        vocab_size=51200, hidden_size=2560, intermediate_size=10240, num_hidden_layers=32, num_attention_heads=32
    )
    with torch.device("meta"):
        adapted = get_peft_model(
            _model(config), LoraConfig(r=16, target_modules=["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"])
        )
    assert lora.count_parameters(adapted) == (23_592_960, 2_779_683_840)
