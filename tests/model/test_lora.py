from __future__ import annotations

import json

import pytest
import torch
import toys
from peft import PeftModel
from transformers import AutoConfig, AutoModelForCausalLM

from phinetune.errors import ModelError, SettingsError
from phinetune.model import lora
from phinetune.settings import LoraSettings


def _trained(base=None, **changes):
    """A toy with an adapter that changes something."""
    model = lora.attach(base or toys.phi(), LoraSettings(**{"r": 4} | changes), "toy", seed=3)
    for _, parameter in lora.trainable(model):
        torch.nn.init.normal_(parameter, std=0.1)
    return model.eval()


def test_all_means_every_linear_layer_of_the_blocks_by_its_own_name():
    assert lora.target_modules(toys.phi(), "all") == ["q_proj", "k_proj", "v_proj", "dense", "fc1", "fc2"]
    assert lora.target_modules(toys.llama(), "all") == [
        "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
    ]  # fmt: skip


def test_presets_and_names_by_hand():
    model = toys.phi()
    assert lora.target_modules(model, "minimal") == ["q_proj", "v_proj"]
    assert lora.target_modules(model, "attention") == ["q_proj", "k_proj", "v_proj", "dense"]
    assert lora.target_modules(model, ["fc1", "dense"]) == ["fc1", "dense"]
    assert lora.target_modules(model, "fc1, dense") == ["fc1", "dense"]


def test_llama_names_on_phi_are_refused_with_the_names_that_exist():
    with pytest.raises(SettingsError, match="no layer called o_proj, gate_proj") as caught:
        lora.target_modules(toys.phi(), ["q_proj", "o_proj", "gate_proj"])
    assert "q_proj, k_proj, v_proj, dense, fc1, fc2" in caught.value.hint


@pytest.mark.skipif(not toys.PHI2.is_dir(), reason="Phi-2's real configuration is not here")
def test_phi2_gets_23592960_trainable_parameters_of_2779683840():
    config = AutoConfig.from_pretrained(toys.PHI2)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
        adapted = lora.attach(model, LoraSettings(), "microsoft/phi-2", seed=0)
    assert lora.count_parameters(adapted) == (23_592_960, 2_779_683_840)


def test_a_fresh_adapter_changes_nothing_and_is_fp32_on_a_frozen_base():
    base, ids = toys.phi().to(torch.bfloat16), torch.arange(9)[None]
    before = base(ids).logits
    model = lora.attach(base, LoraSettings(), "toy", seed=0).eval()
    assert torch.equal(model(ids).logits, before)
    assert {p.dtype for _, p in lora.trainable(model)} == {torch.float32}
    assert all("lora_" in name for name, _ in lora.trainable(model))


def test_the_seed_decides_the_start():
    def start(seed: int) -> torch.Tensor:
        return lora.trainable(lora.attach(toys.phi(), LoraSettings(), "toy", seed))[0][1]

    assert torch.equal(start(1), start(1))
    assert not torch.equal(start(1), start(2))


@pytest.mark.parametrize("pickled", [False, True])
def test_plain_peft_loads_what_we_save_and_gives_the_same_logits(tmp_path, pickled):
    model, ids = _trained(), torch.arange(20)[None]
    lora.save(model, tmp_path)
    if pickled:
        lora.pickle_weights(tmp_path)
        (tmp_path / "adapter_model.safetensors").unlink()
    plain = PeftModel.from_pretrained(toys.phi(), str(tmp_path)).eval()
    torch.testing.assert_close(plain(ids).logits, model(ids).logits)
    ours = lora.load_adapter(toys.phi(), tmp_path, allow_bin=pickled)
    assert torch.equal(ours(ids).logits, plain(ids).logits)


def test_the_saved_adapter_names_its_base(tmp_path):
    lora.save(_trained(), tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "toy"
    assert config["target_modules"] == ["dense", "fc1", "fc2", "k_proj", "q_proj", "v_proj"]
    assert {file.name for file in tmp_path.iterdir()} == {"adapter_config.json", "adapter_model.safetensors"}


def test_an_adapter_for_another_architecture_is_refused(tmp_path):
    lora.save(_trained(), tmp_path)
    with pytest.raises(ModelError, match="another kind of model: it changes dense, fc1, fc2"):
        lora.load_adapter(toys.llama(), tmp_path)


def test_an_adapter_for_another_size_is_refused(tmp_path):
    lora.save(_trained(), tmp_path)
    with pytest.raises(ModelError, match="does not fit this base model: .* differ in name or shape"):
        lora.load_adapter(toys.phi(hidden_size=32, num_attention_heads=2), tmp_path)


def test_missing_and_damaged_weights_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"adapter_config.json is missing"):
        lora.load_adapter(toys.phi(), tmp_path)
    lora.save(_trained(), tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:200])
    with pytest.raises(ModelError, match="are damaged"):
        lora.load_adapter(toys.phi(), tmp_path)
    weights.unlink()
    with pytest.raises(ModelError, match="holds no adapter weights"):
        lora.load_adapter(toys.phi(), tmp_path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Trap:
        def __reduce__(self):
            return (exec, (f"open({str(tmp_path / 'sprung')!r}, 'w')",))

    lora.save(_trained(), tmp_path)
    (tmp_path / "adapter_model.safetensors").unlink()
    torch.save({"weights": Trap()}, tmp_path / "adapter_model.bin")
    with pytest.raises(ModelError, match="can carry code"):
        lora.load_adapter(toys.phi(), tmp_path)
    with pytest.raises(ModelError, match="holds something else than numbers, which could be code") as caught:
        lora.load_adapter(toys.phi(), tmp_path, allow_bin=True)
    told = caught.value.message + caught.value.hint
    assert told.isprintable()
    assert "weights_only" not in told
    assert not (tmp_path / "sprung").exists()


def test_copies_in_one_piece_are_saved_as_those_that_are_not(tmp_path):
    model = _trained()
    weights = {name: parameter.detach() for name, parameter in lora.trainable(model)}
    copies = lora.in_one_piece(weights)
    with torch.no_grad():
        expected = {name: weight.clone() for name, weight in weights.items()}
        lora.save(model, tmp_path / "now")
        for weight in weights.values():
            weight.add_(1)
    assert all(torch.equal(copies[name], weight) for name, weight in expected.items())
    assert copies.keys() == weights.keys()
    lora.save(model, tmp_path / "copied", copies)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "copied" / file).read_bytes() == (tmp_path / "now" / file).read_bytes()


def test_a_number_alone_is_copied_as_one():
    copied = lora.in_one_piece({"step": torch.tensor(3.0), "moments": torch.ones(2, 2)})
    assert copied["step"].shape == ()
    assert float(copied["step"]) == 3
    assert copied["moments"].shape == (2, 2)
