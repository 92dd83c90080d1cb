"""Where a base model comes from, and what is said when it cannot be had."""

from __future__ import annotations

import json

import pytest
import torch
import toys
from transformers import modeling_utils
from transformers.integrations import hub_kernels

from phinetune.errors import ModelError
from phinetune.model import load
from phinetune.model.find_shape import find_shape
from phinetune.model.load import find, load_base
from phinetune.model.stored import stored_model

CPU = torch.device("cpu")


def test_a_folder_is_loaded_frozen_in_the_wanted_format_and_never_resized(toy_base):
    base = load_base(str(toy_base), torch.bfloat16, CPU)
    assert (base.kind, base.hub_name, base.spec) == ("folder", None, str(toy_base.resolve()))
    assert {p.dtype for p in base.model.parameters()} == {torch.bfloat16}
    assert not any(p.requires_grad for p in base.model.parameters())
    assert base.model.get_input_embeddings().num_embeddings == 512 != len(base.tokenizer)


def test_a_folder_without_a_model_or_with_pickled_weights_is_refused(toy_base, tmp_path):
    with pytest.raises(ModelError, match=r"config.json is missing"):
        load_base(str(tmp_path), torch.float32, CPU)
    (tmp_path / "config.json").write_text((toy_base / "config.json").read_text())
    torch.save(toys.phi().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no weights in safetensors form") as caught:
        load_base(str(tmp_path), torch.float32, CPU)
    assert "can run code" in caught.value.hint


def test_damaged_weights_are_a_clear_error(toy_base, tmp_path):
    for file in toy_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(str(tmp_path), torch.float32, CPU)


def test_a_model_whose_code_would_have_to_be_run_is_refused(toy_base, tmp_path):
    for file in toy_base.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "made-up", "auto_map": {"AutoModelForCausalLM": "code.Model", "AutoConfig": "code.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "code.py").write_text("raise SystemExit('this must never run')")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_base(str(tmp_path), torch.float32, CPU)


def _with(config, toy_base, folder):
    for file in toy_base.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | config))


@pytest.mark.parametrize("name", ["attn_implementation", "_attn_implementation", "experts_implementation"])
def test_kernels_that_the_file_asks_for_are_not_fetched(name, toy_base, tmp_path, monkeypatch):
    fetched = []
    monkeypatch.setattr(hub_kernels, "get_kernel", lambda *asked, **_: fetched.append(asked))
    for module in (hub_kernels, modeling_utils):
        monkeypatch.setattr(module, "is_kernels_available", lambda *_, **__: True, raising=False)
    _with({name: "some-one/kernels@main"}, toy_base, tmp_path)
    assert load_base(str(tmp_path), torch.float32, CPU).model.config._attn_implementation == "sdpa"
    assert stored_model(tmp_path, None) is not None
    assert not fetched


def test_packed_weights_are_refused(toy_base, tmp_path):
    _with({"quantization_config": {"quant_method": "mxfp4"}}, toy_base, tmp_path)
    with pytest.raises(ModelError, match=r"are packed \(mxfp4\)"):
        load_base(str(tmp_path), torch.float32, CPU)


@pytest.mark.parametrize("spec", ["nowhere.gguf", "./nowhere", "/no/where", "phi-2", "a/b/c"])
def test_a_name_that_can_be_neither_is_refused_without_asking_the_hub(spec):
    with pytest.raises(ModelError, match="There is no model at") as caught:
        find(spec)
    assert "smollm2-135m" in caught.value.hint
    assert "did you mean" not in caught.value.message


def test_the_embedded_model_is_named_when_it_is_misspelt():
    for look in (find, find_shape):
        with pytest.raises(ModelError, match="did you mean smollm2-135m\\?"):
            look("smollm2-135")


def test_a_sentencepiece_vocabulary_alone_is_named_with_what_reads_it(tmp_path, monkeypatch):
    base = toys.save(tmp_path / "base", toys.llama())
    for file in base.glob("tokenizer*"):
        file.unlink()
    (base / "tokenizer.model").write_bytes(b"pieces")
    monkeypatch.setattr(load, "is_protobuf_available", lambda: False)
    for open_it in (lambda: load_base(str(base), torch.float32, torch.device("cpu")), lambda: stored_model(base, None)):
        with pytest.raises(ModelError, match=r"SentencePiece vocabulary alone \(tokenizer\.model\)") as caught:
            open_it()
        assert "pip install protobuf" in caught.value.hint
