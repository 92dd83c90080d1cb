"""SmolLM2-135M's training step three ways in one run: PEFT's own forward with rows of four pairs, the fused LoRA layer
with the same rows, and the fused layer with the whole step of sixteen pairs as one row. Real tokens/s, medians.

    python benchmarks/fused_lora.py [--sheet examples/handbook.xlsx] [--steps 5]

The three take the same step to rounding, dropout masks aside (tests/model/test_fused.py). They take turns, step by
step, so that a machine that slows down slows all three.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from pathlib import Path

import torch

from phinetune.model import lora
from phinetune.model.attention import confined_to_documents
from phinetune.model.device import describe, dtype_name, keep_freed_memory, pick_device, pick_dtype
from phinetune.model.fused import fused_adapters
from phinetune.model.load import load_base
from phinetune.settings import EMBEDDED_MODEL, LoraSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.tokens.batch import StepOrder, micro_batches
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.step import LossScale, optimizer_step

WAYS = {"PEFT, rows of 4": (False, 4), "fused, rows of 4": (True, 4), "fused, one row of 16": (True, 16)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", default=Path(__file__).parents[1] / "examples" / "handbook.xlsx", type=Path)
    parser.add_argument("--steps", default=5, type=int)
    arguments = parser.parse_args()
    device = pick_device()
    dtype = pick_dtype(device)
    keep_freed_memory()
    base = load_base(EMBEDDED_MODEL, dtype, device)
    examples = Encoder(base.tokenizer, PromptTemplate(), 512).examples(find_pairs(arguments.sheet).pairs)
    model = lora.attach(base.model, LoraSettings(), base.name_for_peft, seed=0).train()
    parameters = [parameter for _, parameter in lora.trainable(model)]
    optimizer = torch.optim.AdamW(parameters, lr=0.0, fused=True)
    order = StepOrder(len(examples), 16, seed=0)

    def tokens_per_second(fused: bool, pairs_per_row: int, step: int) -> float:
        batches = micro_batches([examples[i] for i in order.indices(step)], pairs_per_row)
        with fused_adapters(model) if fused else nullcontext():
            start = time.perf_counter()
            result = optimizer_step(
                model,
                parameters,
                optimizer,
                batches,
                learning_rate=0.0,
                max_grad_norm=1.0,
                seed=step,
                loss_scale=LossScale.for_dtype(dtype),
            )
            if device.type == "cuda":
                torch.cuda.synchronize()
            return result.tokens / (time.perf_counter() - start)

    speeds: dict[str, list[float]] = {name: [] for name in WAYS}
    with confined_to_documents(model.get_base_model()):
        for step in range(arguments.steps + 1):
            for name, (fused, pairs_per_row) in WAYS.items():
                speeds[name].append(tokens_per_second(fused, pairs_per_row, step))
    print(f"{describe(device)}, {dtype_name(dtype)}, torch {torch.__version__}, median of {arguments.steps} steps")
    plain = statistics.median(speeds["PEFT, rows of 4"][1:])
    for name, measured in speeds.items():
        median = statistics.median(measured[1:])
        print(f"{name:22} {median:7.1f} real tokens/s   {median / plain:.2f} x")


if __name__ == "__main__":
    main()
