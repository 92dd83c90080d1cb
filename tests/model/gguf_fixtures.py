"""Tiny .gguf files written in the test, and llama.cpp to hold them against."""

from __future__ import annotations

import copy
import json
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from phinetune.model.gguf_names import ARCHITECTURES, NAMES, interleave

Kind = gguf.GGMLQuantizationType

TEXTS = [
    "",
    "Hello, world!",
    "  two  spaces   three    four\tand\t\ttabs ",
    "line\nline\n\n\nparagraph\r\nwindows \n indented",
    "I'll say it's fine, they've WE'LL 'quoted' don’t",
    "In 1984, 12345678 of 3.14159 items cost $99.99 (±0.5%)",
    'def f(x: int) -> str:\n    return f"{x!r}"  # 100%\n\n\tif a != b && c <= d { e(); }',
    "Grüße, naïve café, coöperate, ÅNGSTRÖM, ångström",
    "你好，世界。これはテストです。안녕하세요 한국어",
    "👋🏽 family 👨‍👩‍👧‍👦 flags 🇩🇪🇫🇷 ✅",
    "Привет мир, γειά σου κόσμε, שלום עולם, مرحبا بالعالم",
    "x² + y³ = ½ ⅷ ٣٤٥ १२३",
    "CamelCaseWords and SCREAMING_SNAKE_CASE, https://example.org/a?b=c#d",
    "a\u00a0b\u2003c\u200bd \u2028e",
    "......!!!???---___***",
    " leading and trailing ",
    "                                        forty spaces",
]


def write_gguf(
    path: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerFast | Callable[[gguf.GGUFWriter], None],
    *,
    kind: Kind = Kind.F32,
    fused: bool = False,
    pre: str | None = "gpt-2",
    change: Callable[[gguf.GGUFWriter], None] | None = None,
    without: tuple[str, ...] = (),
) -> PreTrainedModel:
    """Write `model` as llama.cpp's converter would. Returns the model with its weights as they were stored.

    `tokenizer` is byte-level BPE, or writes a vocabulary of its own.
    """
    architecture = ARCHITECTURES[model.config.model_type]
    writer = gguf.GGUFWriter(path, architecture)
    _write_config(writer, model)
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        write_vocabulary(writer, tokenizer, model.config.vocab_size, pre)
    else:
        tokenizer(writer)
    if change:
        change(writer)
    stored = copy.deepcopy(model)
    for name, array in _arrays(stored, kind, fused).items():
        if name not in without:
            writer.add_tensor(name, array[0], raw_dtype=array[1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return stored


def _arrays(model: PreTrainedModel, kind: Kind, fused: bool) -> dict[str, tuple[Any, Kind]]:
    """Every tensor as packed for the file; packing loses digits, which are lost in `model` too."""
    names = NAMES[ARCHITECTURES[model.config.model_type]]
    heads = {"q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads}
    weights = {}
    for name, parameter in model.named_parameters():
        packed = kind if parameter.dim() == 2 else Kind.F32
        rounded = gguf.dequantize(gguf.quantize(parameter.detach().numpy(), packed), packed)
        parameter.data = torch.from_numpy(rounded.copy())
        role = name.split(".")[-2]
        ordered = interleave(parameter.data, heads[role]) if names.is_interleaved(name) else parameter.data
        weights[names.to_gguf(name)] = ordered
    if fused:
        for layer in range(model.config.num_hidden_layers):
            for part in ("weight", "bias"):
                each = [weights.pop(f"blk.{layer}.attn_{x}.{part}") for x in "qkv"]
                weights[f"blk.{layer}.attn_qkv.{part}"] = torch.cat(each)
    kinds = {name: kind if weight.dim() == 2 else Kind.F32 for name, weight in weights.items()}
    return {name: (gguf.quantize(w.numpy(), kinds[name]), kinds[name]) for name, w in weights.items()}


def _write_config(writer: gguf.GGUFWriter, model: PreTrainedModel) -> None:
    config = model.config
    head_dim = config.hidden_size // config.num_attention_heads
    rope = config.rope_parameters
    writer.add_name("Toy")
    writer.add_license("apache-2.0")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if config.model_type == "phi":
        writer.add_layer_norm_eps(config.layer_norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)


def write_vocabulary(writer: gguf.GGUFWriter, tokenizer: PreTrainedTokenizerFast, size: int, pre: str | None) -> None:
    """Byte-level BPE, padded to the size of the embedding as the converter does it."""
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    added = tokenizer.added_tokens_decoder
    by_id = {id: token for token, id in tokenizer.get_vocab().items()}
    kinds = []
    for id in range(size):
        if id not in by_id:
            kinds.append(gguf.TokenType.UNUSED)
        elif id in added:
            kinds.append(gguf.TokenType.CONTROL if added[id].special else gguf.TokenType.USER_DEFINED)
        else:
            kinds.append(gguf.TokenType.NORMAL)
    writer.add_tokenizer_model("gpt2")
    if pre:
        writer.add_tokenizer_pre(pre)
    writer.add_token_list([by_id.get(id, f"[PAD{id}]") for id in range(size)])
    writer.add_token_types(kinds)
    merges = backend["model"]["merges"]
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
    writer.add_bos_token_id(tokenizer.bos_token_id)
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_unk_token_id(tokenizer.unk_token_id)
    writer.add_add_bos_token(False)


@dataclass(frozen=True)
class LlamaCpp:
    """llama.cpp itself with one model loaded."""

    server: Any

    def tokens(self, text: str, add_special: bool = False) -> list[int]:
        question = {"content": text, "add_special": add_special, "parse_special": True}
        found: list[int] = self._ask("tokenize", question)["tokens"]
        return found

    def greedy(self, prompt: list[int], length: int) -> list[int]:
        """The likeliest next tokens, one after the other."""
        question = {"prompt": prompt, "n_predict": length, "temperature": 0, "return_tokens": True}
        found: list[int] = self._ask("completion", question | {"ignore_eos": True})["tokens"]
        return found

    def next_token(self, prompt: list[int]) -> dict[int, float]:
        """Log-probabilities of the ten likeliest next tokens; none where the first is a part of a letter."""
        question = {"prompt": prompt, "n_predict": 1, "temperature": 0, "n_probs": 10}
        steps = self._ask("completion", question).get("completion_probabilities", [])
        return {each["id"]: each["logprob"] for step in steps for each in step["top_logprobs"]}

    def apply_template(self, messages: list[dict[str, str]]) -> str:
        """The prompt that the chat template in the file makes of a chat."""
        found: str = self._ask("apply-template", {"messages": messages})["prompt"]
        return found

    def prompt_tokens(self, messages: list[dict[str, str]]) -> int:
        """How many tokens it reads of that."""
        found: int = self._ask("v1/chat/completions", {"messages": messages, "max_tokens": 1})["usage"]["prompt_tokens"]
        return found

    def _ask(self, what: str, question: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            f"{self.server.listening_address}/{what}",
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)


def llama_cpp(path: Path, adapter: Path | None = None) -> LlamaCpp:
    xllamacpp = pytest.importorskip("xllamacpp")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(path)
    if adapter is not None:
        lora = xllamacpp.CommonAdapterLoraInfo()
        lora.path, lora.scale = str(adapter), 1.0
        settings.lora_adapters = [lora]
    settings.n_ctx, settings.n_parallel, settings.warmup = 256, 1, False
    settings.cpuparams.n_threads = 1
    running = LlamaCpp(xllamacpp.Server(settings))
    # A server that is ended before its main loop has begun waits for it forever; one written token proves the loop.
    running.greedy([1], 1)
    return running


def greedy(model: PreTrainedModel, prompt: list[int], length: int) -> list[int]:
    """The same from transformers, without a cache."""
    ids = list(prompt)
    for _ in range(length):
        scores = next_token(model, ids)
        ids.append(max(scores, key=scores.__getitem__))
    return ids[len(prompt) :]


def next_token(model: PreTrainedModel, prompt: list[int]) -> dict[int, float]:
    with torch.no_grad():
        scores = model(torch.tensor([prompt])).logits[0, -1].log_softmax(-1)
    return dict(enumerate(scores.tolist()))


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        scores: torch.Tensor = model(torch.arange(3, 43)[None]).logits
    return scores
