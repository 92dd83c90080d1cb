"""`--lr auto`: the learning rate that suits a model of its width.

A search by short runs on a part of the sheet was tried before, and did not earn its time: see benchmarks/quality.md.
"""

from __future__ import annotations

import math

from transformers import PreTrainedConfig

from phinetune.settings import TrainSettings


def usual_rate(hidden_size: int) -> float:
    """The rate that LoRA usually likes best in a model of this width.

    5e-4 (2000 / width)^0.781: fitted to Llama models by Thinking Machines Lab ("LoRA Without Regret", 2025, and the
    Tinker documentation), for scaling by alpha / r with alpha = 32. 4e-4 for Phi-2, 1.3e-3 for SmolLM2-135M.
    """
    return float(f"{5e-4 * math.pow(2000 / hidden_size, 0.781):.1e}")


def with_learning_rate(settings: TrainSettings, config: PreTrainedConfig) -> TrainSettings:
    """The settings with a number for `auto`; others as they are."""
    if settings.learning_rate != "auto":
        return settings
    return settings.model_copy(update={"learning_rate": usual_rate(config.get_text_config().hidden_size)})
