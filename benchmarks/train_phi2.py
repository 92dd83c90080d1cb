"""Phi-2 at its full size, with random weights, which train at the true speed: real tokens/s and peak memory beside the
speed of the matrix products alone, measured in the same run.

    python benchmarks/train_phi2.py [--sheet examples/handbook.xlsx] [--steps 4] [--dtype auto]
    python benchmarks/train_phi2.py --whole            # the guide's whole job: 5 epochs, validation, checkpoints
    python benchmarks/train_phi2.py --pairs-per-step 128   # on a GPU: rows of a few thousand tokens

The bound counts 4 FLOP per weight of the linear layers and token: one product forward, one backward for the gradient
of the input; frozen weights need none of their own. Its rate is that of the largest product (2560 x 10240) at the
row length of the run, measured before and after.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from bench import product_rate, publish
from peft.tuners.lora.layer import Linear as PeftLinear
from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM

from phinetune.events import Saved, StepDone, Validated, Warned
from phinetune.model import lora
from phinetune.model.device import (
    bound_kernel_caches,
    dtype_name,
    keep_freed_memory,
    peak_memory_gb,
    pick_device,
    pick_dtype,
)
from phinetune.model.load import load_base, switch_off_dropout
from phinetune.run_folder import RunFolder
from phinetune.settings import EMBEDDED_MODEL, LoraSettings, TrainSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit

HERE = Path(__file__).parent
PHI2_TOKENIZER = HERE.parents[1] / "shared" / "phi2"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", default=HERE.parent / "examples" / "handbook.xlsx", type=Path)
    parser.add_argument("--steps", default=4, type=int)
    parser.add_argument("--pairs-per-step", default=16, type=int)
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--whole", action="store_true", help="441 pairs, 5 epochs, validation and checkpoints")
    arguments = parser.parse_args()
    device = pick_device()
    dtype = pick_dtype(device, arguments.dtype)
    if device.type == "cpu":
        keep_freed_memory()
        bound_kernel_caches()

    per_step = arguments.pairs_per_step
    examples = Encoder(tokenizer(), PromptTemplate(), 512).examples(find_pairs(arguments.sheet).pairs)
    corpus = Corpus(examples[: 16 * 28 - 7], examples[16 * 28 - 7 :]) if arguments.whole else Corpus(examples, [])
    model = lora.attach(phi2(dtype, device), LoraSettings(), "microsoft/phi-2", seed=0)
    steps_an_epoch = -(-len(corpus.train) // per_step)
    settings = TrainSettings(
        epochs=5 if arguments.whole else arguments.steps / steps_an_epoch,
        batch_size=per_step,
        grad_accum=1,
        patience=0,
        eval_steps=None if arguments.whole else 10**6,
        save_steps=None if arguments.whole else 10**6,
    )
    rows = [len(example.ids) for example in corpus.train]
    row = round(statistics.mean(rows) * per_step)
    rates = [product_rate(row, 2560, 10240, dtype, device)]
    steps, start, checked = [], time.perf_counter(), None
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        for event in fit(model, corpus, settings, checkpoints, pairs_per_row=per_step):
            if isinstance(event, StepDone):
                steps.append(event)
                print(f"step {event.step}: {event.seconds:.2f} s, {event.tokens} tokens, loss {event.train_loss:.3f}")
            elif isinstance(event, Validated | Saved | Warned):
                print(event, flush=True)
            if isinstance(event, StepDone | Validated) and checked is None:
                checked = time.perf_counter() - start - event.seconds
    whole = time.perf_counter() - start
    rates.append(product_rate(row, 2560, 10240, dtype, device))
    rate = max(rates)
    weights = sum(module.base_layer.weight.numel() for module in model.modules() if isinstance(module, PeftLinear))
    bound = rate / (4 * weights)
    # The first one fills caches and takes memory from the system. On a GPU some record a graph; the median does not.
    counted = steps[1:] or steps
    speed = statistics.median(step.tokens / step.seconds for step in counted)
    all_in_all = sum(step.tokens for step in steps) / sum(step.seconds for step in steps)
    publish(
        f"Phi-2 at full size, random weights, {arguments.sheet.stem}",
        "python benchmarks/train_phi2.py"
        + (" --whole" if arguments.whole else f" --steps {arguments.steps}")
        + (f" --pairs-per-step {per_step}" if per_step != 16 else "")
        + (f" --dtype {arguments.dtype}" if arguments.dtype != "auto" else "")
        + f" --sheet {arguments.sheet.name}",
        ["what", "figure"],
        [
            ["number format", dtype_name(dtype)],
            ["trainable parameters of all", "{:,} of {:,}".format(*lora.count_parameters(model))],
            ["seconds a step, median", f"{statistics.median(step.seconds for step in counted):.3f}"],
            ["real tokens a step, mean", f"{statistics.mean(step.tokens for step in counted):.0f}"],
            ["real tokens/s, median of the steps", f"{speed:,.1f}"],
            ["real tokens/s, all steps", f"{all_in_all:,.1f}"],
            ["matrix products alone", f"{rate / 1e9:,.0f} GFLOP/s, at most {bound:,.1f} tokens/s"],
            ["share of the products' bound", f"{speed / bound:.0%}"],
            ["peak memory", f"{peak_memory_gb(device):.1f} GB" + _held(device)],
            ["check of the fast way before the first step", f"{checked:.1f} s"],
            [f"all {len(steps)} steps", f"{sum(step.seconds for step in steps):.1f} s"],
            ["the whole run" + (", validation and checkpoints too" if arguments.whole else ""), f"{whole:.1f} s"],
        ],
    )


def _held(device: torch.device) -> str:
    """Beside the tensors, what torch's allocator holds of a GPU."""
    return f" ({torch.cuda.max_memory_reserved(device) / 1e9:.1f} held)" if device.type == "cuda" else ""


def phi2(dtype: torch.dtype, device: torch.device) -> PhiForCausalLM:
    """Phi-2's architecture, filled with random numbers of the size that its training began with."""
    config = PhiConfig(
        vocab_size=51200,
        hidden_size=2560,
        intermediate_size=10240,
        num_hidden_layers=32,
        num_attention_heads=32,
        partial_rotary_factor=0.4,
        resid_pdrop=0.1,
        bos_token_id=50256,
        eos_token_id=50256,
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            model = PhiForCausalLM(config)
    finally:
        torch.set_default_dtype(before)
    switch_off_dropout(model)  # as loading does
    return model.requires_grad_(False)


def tokenizer() -> object:
    """Phi-2's own where it is at hand, else the embedded model's, which cuts English alike."""
    if PHI2_TOKENIZER.is_dir():
        return AutoTokenizer.from_pretrained(PHI2_TOKENIZER)
    return load_base(EMBEDDED_MODEL, torch.float32, torch.device("cpu")).tokenizer


if __name__ == "__main__":
    main()
