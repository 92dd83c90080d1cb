"""Whether a training step fits in memory, estimated before it is tried."""

from __future__ import annotations

from typing import Any

import psutil
import torch

# A transformer block keeps about 34 bytes per token and hidden unit in 16-bit numbers for its backward pass,
# attention scores aside (Korthikanti et al., 2022, "Reducing Activation Recomputation in Large Transformer Models",
# equation 2). The fused attention kernels do not keep the scores.
_BYTES_PER_UNIT_16_BIT = 34
_SHARE_TO_USE = 0.8  # the rest is for what the estimate does not see: allocator slack, kernels' workspace


def activation_bytes(config: Any, tokens: int, dtype: torch.dtype) -> int:
    """Bytes kept for the backward pass of one row of `tokens`, its logits included (at worst one a token)."""
    width = dtype.itemsize / 2
    blocks = _BYTES_PER_UNIT_16_BIT * width * tokens * config.hidden_size * config.num_hidden_layers
    logits = tokens * config.vocab_size * (dtype.itemsize + 2 * 4)  # the logits, their fp32 copy and its gradient
    return int(blocks + logits)


def free_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)


def needs_checkpointing(model: Any, tokens: int, device: torch.device) -> bool:
    """Whether a row of `tokens` would not fit beside the loaded model unless activations are recomputed."""
    return activation_bytes(model.config, tokens, model.dtype) > _SHARE_TO_USE * free_bytes(device)
