"""The adapter alone as a .gguf file of a few megabytes, for `--lora` beside the .gguf base model that is there already.

    A [r, in], B [out, r]  ─►  blk.0.attn_q.weight.lora_a, blk.0.attn_q.weight.lora_b, in f16 or f32

The layout is that of llama.cpp's convert_lora_to_gguf.py. llama.cpp multiplies by alpha / r itself.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
from peft import PeftModel
from peft.tuners.lora.layer import Linear as PeftLinear

from phinetune.artifacts.gguf import GgufFacts, add_facts, architecture_of
from phinetune.model.gguf_names import NAMES, interleave
from phinetune.run_folder import atomic_file

_FORMATS = {"f16": np.float16, "f32": np.float32}


def write_gguf_adapter(path: Path, model: PeftModel, facts: GgufFacts, kind: str = "f16") -> None:
    """Write the adapter of `model` to `path`, or nothing. Raises ModelError for an architecture not supported."""
    base = model.get_base_model()
    architecture = architecture_of(base.config)
    names, config = NAMES[architecture], base.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    with atomic_file(path) as temporary:
        writer = gguf.GGUFWriter(temporary, architecture)
        try:
            add_facts(writer, facts, "adapter")
            writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
            writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, _alpha(model))
            for name, layer in base.named_modules():
                if not isinstance(layer, PeftLinear):
                    continue
                [active] = layer.active_adapters
                down, up = (part[active].weight.detach().float().cpu() for part in (layer.lora_A, layer.lora_B))
                if names.is_interleaved(f"{name}.weight"):
                    up = interleave(up, heads[name.rpartition(".")[2]])
                stored = names.to_gguf(f"{name}.weight")
                for suffix, matrix in (("lora_a", down), ("lora_b", up)):
                    writer.add_tensor(f"{stored}.{suffix}", matrix.numpy().astype(_FORMATS[kind]))
            writer.write_header_to_file()
            writer.write_kv_data_to_file()
            writer.write_tensors_to_file()
        finally:
            writer.close()


def _alpha(model: PeftModel) -> float:
    config: Any = model.peft_config["default"]
    return float(config.lora_alpha)
