"""A tuned model -> a .gguf file for llama.cpp, Ollama and LM Studio, straight from the adapter.

    facts, settings, vocabulary, a table of the tensors   ─►  model.q8_0.gguf
    W + s B A, some rows at a time (gguf_weights.py)      ─►

The header is written with the `gguf` package of llama.cpp, and the facts that it states are those of llama.cpp's
convert_hf_to_gguf.py. How each tensor is packed stands in quantize.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from phinetune.artifacts.gguf_vocabulary import add_vocabulary
from phinetune.artifacts.gguf_weights import PlacedTensor, aligned, write_weights
from phinetune.artifacts.merge import require_space
from phinetune.artifacts.quantize import Packing, check_kind, packed_bytes
from phinetune.errors import ModelError
from phinetune.model.gguf_names import ARCHITECTURES, NAMES
from phinetune.model.merge import MergedTensor
from phinetune.recipe import RECIPE_KEY, Recipe
from phinetune.run_folder import atomic_file

_WIDE = np.dtype(np.float32)
_SPARE = 64 << 20  # of the disk: vocabulary and header


@dataclass(frozen=True)
class GgufFacts:
    """What the file says of itself besides its weights.

    `chat_template` is the training prompt as other programs read it; an adapter alone has none.
    """

    name: str
    base_name: str | None
    license: str | None
    description: str
    recipe: Recipe
    chat_template: str | None = None


def write_gguf(
    path: Path,
    kind: str,
    tensors: Iterable[MergedTensor],
    config: Any,
    tokenizer: Any,
    facts: GgufFacts,
    on_progress: Callable[[int, int], None] = lambda *_: None,
) -> None:
    """Write the whole model to `path`, or nothing.

    `on_progress(tensors written, tensors in all)`. Raises ModelError for an architecture that is not supported,
    RunError when the disk is too small.
    """
    architecture = architecture_of(config)
    names, tensors = NAMES[architecture], list(tensors)
    packing = _packing(kind, tensors, config)
    kinds = {tensor.name: packing.kind_of(names.to_gguf(tensor.name), tensor.shape) for tensor in tensors}
    require_space(path, file_bytes(kind, tensors, config))
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with atomic_file(path) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture)
        try:
            add_facts(writer, facts, "model")
            _add_config(writer, config)
            writer.add_file_type(packing.file_type)
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            add_vocabulary(writer, tokenizer, config.vocab_size, config.model_type, facts.recipe.template)
            for tensor in tensors:
                stored = kinds[tensor.name]
                size = packed_bytes(tensor.shape, stored)
                writer.add_tensor_info(names.to_gguf(tensor.name), tensor.shape, _WIDE, size, stored)
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_ti_data_to_file()
        finally:
            writer.close()
        placed: list[PlacedTensor] = []
        for tensor in tensors:
            offset = aligned(placed[-1].end if placed else temporary.stat().st_size)
            turned = names.is_interleaved(tensor.name)
            head_rows = tensor.shape[0] // heads[tensor.name.split(".")[-2]] if turned else 1
            placed.append(PlacedTensor(tensor, kinds[tensor.name], offset, head_rows))
        write_weights(temporary, placed, on_progress)


def file_bytes(kind: str, tensors: Sequence[MergedTensor], config: Any) -> int:
    """Room that the file takes on the disk, and some. Raises ModelError for an architecture that is not supported."""
    names, packing = NAMES[architecture_of(config)], _packing(kind, tensors, config)
    kinds = (packing.kind_of(names.to_gguf(tensor.name), tensor.shape) for tensor in tensors)
    return sum(packed_bytes(tensor.shape, stored) for tensor, stored in zip(tensors, kinds, strict=True)) + _SPARE


def _packing(kind: str, tensors: Sequence[MergedTensor], config: Any) -> Packing:
    return Packing(
        check_kind(kind),
        layers=config.num_hidden_layers,
        tied=not any(tensor.name == "lm_head.weight" for tensor in tensors),
        shared=config.num_attention_heads // config.num_key_value_heads,
    )


def architecture_of(config: Any) -> str:
    """llama.cpp's name for the architecture. Raises ModelError for one that cannot be written."""
    architecture = ARCHITECTURES.get(config.model_type)
    if architecture is None:
        raise ModelError(
            f"Models of the kind {config.model_type} cannot be written as .gguf here; {', '.join(ARCHITECTURES)} can.",
            "Merge it with `phinetune merge`, and convert the folder with llama.cpp's own script.",
        )
    return architecture


def add_facts(writer: gguf.GGUFWriter, facts: GgufFacts, kind: str) -> None:
    """What the file says of itself; `kind` is model or adapter."""
    writer.add_type(kind)
    writer.add_name(facts.name)
    writer.add_description(facts.description)
    writer.add_string(RECIPE_KEY, facts.recipe.to_text())
    if facts.chat_template:
        writer.add_chat_template(facts.chat_template)
    if facts.license:
        writer.add_license(facts.license)
    if facts.base_name and "/" in facts.base_name:
        organization, _, name = facts.base_name.partition("/")
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, name)
        writer.add_base_model_organization(0, organization)
        writer.add_base_model_repo_url(0, f"https://huggingface.co/{facts.base_name}")


def _add_config(writer: gguf.GGUFWriter, config: Any) -> None:
    rope = config.rope_parameters
    if rope.get("rope_type", "default") != "default":
        raise ModelError(
            f"Positions scaled by {rope['rope_type']!r} cannot be written as .gguf here.",
            "Merge the model with `phinetune merge`, and convert the folder with llama.cpp's own script.",
        )
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads or config.num_attention_heads)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(head_dim * rope.get("partial_rotary_factor", 1.0)))
    if config.model_type == "phi":
        writer.add_layer_norm_eps(config.layer_norm_eps)
        return
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if config.model_type == "mistral" and config.sliding_window:
        writer.add_sliding_window(config.sliding_window)
