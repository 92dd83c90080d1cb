"""SmolLM2-135M on the CPU: our real tokens/s beside those of other people's recipes, all in one run.

    pip install -c constraints.txt 'phinetune[bench]'
    python benchmarks/train_cpu.py [--sheet examples/handbook.xlsx] [--rounds 3]

Each recipe runs in a process of its own, and they take turns, so that a machine that slows down slows all of them;
the medians over the rounds are compared. The guide's recipe, a minute a step, runs once. See recipes.py for what
each does. The last column is the share of the machine's own bf16 matrix products: 4 FLOP per weight and token for the
linear layers and the head's rows of answer tokens, at the rate measured between the rounds.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from pathlib import Path

import torch
from bench import in_a_process, product_rate, publish

from phinetune.model.load import load_base
from phinetune.settings import EMBEDDED_MODEL
from phinetune.sheet.pairs import find_pairs
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

HERE = Path(__file__).parent
RECIPES = {
    "phinetune": ("ours", 12, "bf16"),
    "TRL, packed": ("trl-packed", 6, "bf16"),
    "TRL, padded to the longest": ("trl", 2, "bf16"),
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", default=HERE.parent / "examples" / "handbook.xlsx", type=Path)
    parser.add_argument("--rounds", default=3, type=int)
    arguments = parser.parse_args()
    speeds: dict[str, list[float]] = {name: [] for name in RECIPES}
    memory: dict[str, float] = {}
    rates = []
    with tempfile.TemporaryDirectory() as folder:
        flop_a_token = export(folder, arguments.sheet)

        def run(recipe: str, steps: int, dtype: str) -> dict[str, float]:
            options = ("--model", folder, "--sheet", arguments.sheet, "--steps", steps, "--dtype", dtype)
            return in_a_process(str(HERE / "recipes.py"), recipe, *options)

        for _ in range(arguments.rounds):
            for name, (recipe, steps, dtype) in RECIPES.items():
                figures = run(recipe, steps, dtype)
                speeds[name].append(figures["real_tokens_per_s"])
                memory[name] = figures["peak_memory_gb"]
                print(f"{name:28} {figures['real_tokens_per_s']:7.1f} real tokens/s", flush=True)
            rates.append(product_rate(544, 576, 1536, torch.bfloat16, torch.device("cpu")))
        guide = run("guide", 1, "fp32")
        speeds["the guide's script, fp32"], memory["the guide's script, fp32"] = (
            [guide["real_tokens_per_s"]],
            guide["peak_memory_gb"],
        )
    bound = max(rates) / flop_a_token
    ours = statistics.median(speeds["phinetune"])
    rows = [
        [
            name,
            f"{(median := statistics.median(measured)):.0f}",
            f"{ours / median:.2f} x",
            f"{memory[name]:.1f} GB",
            f"{median / bound:.0%}",
        ]
        for name, measured in speeds.items()
    ]
    publish(
        f"SmolLM2-135M, LoRA on every linear layer, {arguments.sheet.stem}",
        f"python benchmarks/train_cpu.py --sheet {arguments.sheet.name} --rounds {arguments.rounds}",
        ["recipe", "real tokens/s", "phinetune against it", "peak memory", "share of the products' bound"],
        rows,
        f"Products alone: {max(rates) / 1e9:.0f} GFLOP/s in bf16, at most {bound:.0f} tokens/s.",
    )


def export(folder: str, sheet: Path) -> float:
    """Write the embedded model as an ordinary folder that every recipe can load; FLOP of the products a real token."""
    base = load_base(EMBEDDED_MODEL, torch.bfloat16, torch.device("cpu"))
    base.model.save_pretrained(folder)
    base.tokenizer.save_pretrained(folder)
    examples = Encoder(base.tokenizer, PromptTemplate(), 512).examples(find_pairs(sheet).pairs)
    answers = sum(e.answer_tokens for e in examples) / sum(len(e.ids) for e in examples)
    layers = sum(p.numel() for name, p in base.model.model.layers.named_parameters() if p.dim() == 2)
    return float(4 * (layers + answers * base.model.lm_head.weight.numel()))


if __name__ == "__main__":
    main()
