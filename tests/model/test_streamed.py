"""A model whose weights stay on the disk says what the one in memory says, and holds one matrix at a time."""

from __future__ import annotations

import pytest
import torch
import toys
from safetensors.torch import load_file, save_file

from model.gguf_fixtures import write_gguf
from phinetune.errors import ModelError
from phinetune.model import lora, streamed
from phinetune.model.streamed import streamed_model
from phinetune.settings import LoraSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use.agreement import general_examples, mean_loss


def _adapter(base: torch.nn.Module, folder, *, dora: bool = False):
    model = lora.attach(base, LoraSettings(r=4, alpha=16), "toy", seed=1)
    if dora:
        base = model.unload()
        model.peft_config["default"].use_dora = True
        model = type(model)(base, model.peft_config["default"])
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            torch.nn.init.normal_(parameter, 1.0 if "magnitude" in name else 0.0, std=0.1)
    lora.save(model, folder)
    return model.eval()


@pytest.fixture
def examples():
    return general_examples(Encoder(toys.tokenizer(), PromptTemplate(), 128))


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("make", [toys.phi, toys.llama])
def test_its_loss_is_that_of_the_model_in_memory(make, dora, tmp_path, examples):
    toys.save(tmp_path / "base", make())
    base = mean_loss(make(), examples)
    expected = mean_loss(_adapter(make(), tmp_path / "adapter", dora=dora), examples)
    assert abs(base - expected) > 0.01
    for adapter, loss in ((None, base), (tmp_path / "adapter", expected)):
        found = streamed_model(tmp_path / "base", adapter)
        assert found.tokenizer("Who?").input_ids == toys.tokenizer()("Who?").input_ids
        assert mean_loss(found.model, examples) == pytest.approx(loss, abs=1e-5)


def test_a_gguf_file_is_read_in_the_same_way(tmp_path, examples):
    model = toys.llama()
    write_gguf(tmp_path / "base.gguf", model, toys.tokenizer())
    assert mean_loss(streamed_model(tmp_path / "base.gguf", None).model, examples) == pytest.approx(
        mean_loss(model, examples), abs=1e-5
    )


def test_no_more_than_the_parameters_of_one_module_are_in_memory(tmp_path, examples, monkeypatch):
    toys.save(tmp_path / "base", toys.phi())
    _adapter(toys.phi(), tmp_path / "adapter")
    model = streamed_model(tmp_path / "base", tmp_path / "adapter").model
    held = []

    def read(rows, shape):
        held.append([name for name, each in model.named_parameters() if not each.is_meta and ".lora_" not in name])
        return whole(rows, shape)

    whole = streamed._whole
    monkeypatch.setattr(streamed, "_whole", read)
    mean_loss(model, examples[:2])
    assert len(held) > 20
    assert {len(names) for names in held} == {0, 1}  # a weight, when its bias is read
    assert all(each.is_meta for name, each in model.named_parameters() if ".lora_" not in name)


def test_weights_are_let_go_of_when_computing_fails(tmp_path, examples, monkeypatch):
    toys.save(tmp_path / "base", toys.phi())
    model = streamed_model(tmp_path / "base", None).model
    monkeypatch.setattr(torch.nn.functional, "linear", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        mean_loss(model, examples[:1])
    assert all(each.is_meta for each in model.parameters())


def test_files_with_other_names_and_adapters_of_other_models_are_not_read_so(tmp_path):
    base = toys.save(tmp_path / "base", toys.phi())
    _adapter(toys.phi(num_hidden_layers=3), tmp_path / "other")
    with pytest.raises(ModelError, match="does not fit this base model"):
        streamed_model(base, tmp_path / "other")
    weights = load_file(base / "model.safetensors")
    save_file({f"x.{name}": each for name, each in weights.items()}, base / "model.safetensors", {"format": "pt"})
    assert streamed_model(base, None) is None
    assert streamed_model(tmp_path, None) is None
