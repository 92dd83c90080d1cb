"""Phi-2 at its full size, with random weights: seconds a step, real tokens/s and peak memory, beside the speed of the
matrix products alone, measured in the same run.

    python benchmarks/train_phi2.py [--sheet examples/handbook.xlsx] [--steps 3] [--dtype auto]

Random weights train at the true speed. The bound counts 4 FLOP per weight of the linear layers and token: one
product forward, one backward for the gradient of the input; frozen weights need none of their own. It takes the
rate of the largest product of the model (2560 x 10240) at the row length of the run as what the machine can do.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch
from peft.tuners.lora.layer import Linear as PeftLinear
from transformers import AutoTokenizer, PhiConfig, PhiForCausalLM

from phinetune.events import StepDone
from phinetune.model import lora
from phinetune.model.device import describe, dtype_name, keep_freed_memory, peak_memory_gb, pick_device, pick_dtype
from phinetune.model.load import load_base
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
    parser.add_argument("--steps", default=3, type=int)
    parser.add_argument("--dtype", default="auto")
    arguments = parser.parse_args()
    device = pick_device()
    dtype = pick_dtype(device, arguments.dtype)
    keep_freed_memory()

    encoder = Encoder(tokenizer(), PromptTemplate(), 512)
    examples = encoder.examples(find_pairs(arguments.sheet).pairs)[: 16 * arguments.steps]
    model = lora.attach(phi2(dtype, device), LoraSettings(), "microsoft/phi-2", seed=0)
    settings = TrainSettings(epochs=1, patience=0)
    steps = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        for event in fit(model, Corpus(examples, []), settings, checkpoints):
            if isinstance(event, StepDone):
                steps.append(event)
                print(f"step {event.step}: {event.seconds:.1f} s, {event.tokens} tokens, loss {event.train_loss:.3f}")
    trainable, total = lora.count_parameters(model)
    row = round(statistics.mean(len(e.ids) for e in examples) * settings.batch_size)
    rate = product_rate(row, dtype, device)
    weights = sum(module.base_layer.weight.numel() for module in model.modules() if isinstance(module, PeftLinear))
    bound = rate / (4 * weights)
    speed = sum(s.tokens for s in steps) / sum(s.seconds for s in steps)
    print(f"device              {describe(device)}, {dtype_name(dtype)}, torch {torch.__version__}")
    print(f"parameters          {total:,}, trainable {trainable:,}")
    print(f"seconds a step      {statistics.median(s.seconds for s in steps):.1f} (median of {len(steps)}, 16 pairs)")
    print(f"real tokens/s       {speed:.1f}")
    print(f"products alone      {rate / 1e9:.0f} GFLOP/s at rows of {row} tokens: at most {bound:.1f} tokens/s")
    print(f"share of the bound  {speed / bound:.0%}")
    print(f"peak memory         {peak_memory_gb(device):.1f} GB")


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
        model = PhiForCausalLM(config).to(device)
    finally:
        torch.set_default_dtype(before)
    return model.requires_grad_(False)


def tokenizer() -> object:
    """Phi-2's own where it is at hand, else the embedded model's, which cuts English alike."""
    if PHI2_TOKENIZER.is_dir():
        return AutoTokenizer.from_pretrained(PHI2_TOKENIZER)
    return load_base(EMBEDDED_MODEL, torch.float32, torch.device("cpu")).tokenizer


def product_rate(row: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of the model's largest products, forward and backward, over rows of `row` tokens; median of 5."""
    x = torch.randn(row, 2560, dtype=dtype, device=device)
    weight = torch.randn(10240, 2560, dtype=dtype, device=device)
    g = torch.randn(row, 10240, dtype=dtype, device=device)
    seconds = []
    for _ in range(6):
        start = time.perf_counter()
        x @ weight.T
        g @ weight
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return 2 * 2 * row * 2560 * 10240 / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
