from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import pytest
import toys
from transformers import PhiConfig

from model.gguf_fixtures import write_gguf
from phinetune.errors import ModelError
from phinetune.model.gguf_config import read_config
from phinetune.model.gguf_file import GgufFile, open_gguf


def toy(path: Path, change: Callable[[gguf.GGUFWriter], None] | None = None, **traits: Any) -> GgufFile:
    write_gguf(path / "toy.gguf", toys.llama(**traits), toys.tokenizer(), change=change)
    return open_gguf(path / "toy.gguf")


def test_phi_2_gets_the_settings_it_was_published_with(tmp_path: Path) -> None:
    if not toys.PHI2.is_dir():
        pytest.skip("the Phi-2 configuration is not here")
    published = PhiConfig.from_dict(json.loads((toys.PHI2 / "config.json").read_text()))
    write_gguf(tmp_path / "toy.gguf", toys.phi(), toys.tokenizer())
    file = open_gguf(tmp_path / "toy.gguf")
    # What llama.cpp's converter writes for Phi-2; it writes no rope.freq_base.
    file.metadata.update(
        {
            "phi2.context_length": 2048,
            "phi2.embedding_length": 2560,
            "phi2.feed_forward_length": 10240,
            "phi2.block_count": 32,
            "phi2.attention.head_count": 32,
            "phi2.attention.head_count_kv": 32,
            "phi2.attention.layer_norm_epsilon": 9.999999747378752e-06,
            "phi2.rope.dimension_count": 32,
            "tokenizer.ggml.bos_token_id": 50256,
            "tokenizer.ggml.eos_token_id": 50256,
        }
    )
    del file.metadata["phi2.rope.freq_base"]
    found = read_config(file).to_dict()
    # The file tells neither the dropout of the original training nor the spread of its first weights.
    untold = {"resid_pdrop", "architectures", "dtype", "_name_or_path", "transformers_version", "vocab_size"}
    for key, value in published.to_dict().items():
        if key not in untold:
            assert found[key] == value, key
    assert found["vocab_size"] == 512


def test_every_toy_setting_comes_back(tmp_path: Path) -> None:
    model = toys.llama(rope_parameters={"rope_type": "default", "rope_theta": 50000.0}, rms_norm_eps=1e-5)
    write_gguf(tmp_path / "toy.gguf", model, toys.tokenizer())
    found, expected = read_config(open_gguf(tmp_path / "toy.gguf")).to_dict(), model.config.to_dict()
    # The spread of the first, random weights is nobody's business any more.
    assert [key for key, value in found.items() if value != expected[key]] == ["initializer_range"]


def test_linear_scaling_is_kept(tmp_path: Path) -> None:
    def scale(writer: gguf.GGUFWriter) -> None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(4.0)

    rope = read_config(toy(tmp_path, scale)).rope_parameters
    assert rope == {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}


def test_a_list_of_equal_values_is_one_value(tmp_path: Path) -> None:
    file = toy(tmp_path)
    file.metadata["llama.attention.head_count_kv"] = [2, 2]
    assert read_config(file).num_key_value_heads == 2
    file.metadata["llama.attention.head_count_kv"] = [2, 4]
    with pytest.raises(ModelError, match=r"layers that differ in attention\.head_count_kv"):
        read_config(file)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("general.architecture", "mamba", "'mamba'"),
        ("general.architecture", None, "None"),
        ("llama.expert_count", 8, "a mixture of experts"),
        ("llama.rope.scaling.type", "yarn", "positions scaled by 'yarn'"),
        ("llama.rope.dimension_count", 8, "a part of each head"),
        ("llama.attention.value_length", 8, "another width"),
        ("llama.logit_scale", 0.25, "scaled logits"),
        ("llama.attention.head_count", 5, "share evenly"),
        ("llama.attention.head_count", 0, "a number above 0"),
        ("llama.block_count", None, "llama.block_count"),
        ("llama.attention.layer_norm_rms_epsilon", "tiny", "layer_norm_rms_epsilon"),
    ],
)
def test_what_cannot_be_kept_is_refused(tmp_path: Path, key: str, value: Any, problem: str) -> None:
    file = toy(tmp_path)
    file.metadata[key] = value
    with pytest.raises(ModelError, match=problem) as caught:
        read_config(file)
    assert "toy.gguf" in caught.value.message
    assert caught.value.hint
