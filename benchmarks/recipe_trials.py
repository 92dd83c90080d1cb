"""What makes a better tuned model? Recipes side by side, changed in one thing each, at equal steps.

    python benchmarks/recipe_trials.py --sheet SHEET [--test SHEET] [--variants plain,lora+,…] [--seed 0,1,2]
                                       [--tokens 4000] [--epochs 3] [--lr 1e-3] [--to trials.jsonl]

Every trial trains on the same part of the sheet (about --tokens an epoch, chosen by the seed), from the same adapter
and in the same order, and is measured on the held-out pairs: mean cross-entropy per answer token, end of text
included. A variant is compared with `plain` of the same seed. One JSON line a trial; `--table` prints them.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from operator import itemgetter
from pathlib import Path
from random import Random
from typing import Any

import torch
from bench import keep
from peft import LoraConfig, PeftModel, get_peft_model

from phinetune.model import layers, lora
from phinetune.model.device import keep_freed_memory, pick_device, pick_dtype
from phinetune.model.load import load_base
from phinetune.settings import EMBEDDED_MODEL, LoraSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.sheet.split import split
from phinetune.tokens.batch import micro_batches, validation_batches
from phinetune.tokens.encode import Encoder, Example
from phinetune.tokens.order import StepOrder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.check import proven_row_loss
from phinetune.training.step import LossScale, move_weights, step_gradients, validation_loss

PER_STEP = 8
Shape = Callable[[int, int], float]  # (step from 1, all steps) -> share of the peak learning rate


@dataclass(frozen=True)
class Recipe:
    """The plain recipe; a variant changes one of these."""

    shape: str = "linear"
    warmup: float = 0.1
    dropout: float = 0.05
    r: int = 16
    alpha: int = 32
    rslora: bool = False
    b_ratio: float = 1.0  # LoRA+: learning rate of B over that of A
    neftune: float = 0.0
    question_tokens: bool = False
    order: str = "shuffled"
    average_last: float = 0.0  # mean of the adapter over this last share of the steps
    weight_decay: float = 0.01


VARIANTS: dict[str, Recipe] = {
    "plain": Recipe(),
    "lora+ 4": Recipe(b_ratio=4),
    "lora+ 16": Recipe(b_ratio=16),
    "rslora": Recipe(rslora=True),
    "rank 64": Recipe(r=64, alpha=128),
    "no warm-up": Recipe(warmup=0.0),
    "warm-up 30 %": Recipe(warmup=0.3),
    "cosine": Recipe(shape="cosine"),
    "constant": Recipe(shape="constant"),
    "questions too": Recipe(question_tokens=True),
    "neftune 5": Recipe(neftune=5.0),
    "no dropout": Recipe(dropout=0.0),
    "dropout 0.2": Recipe(dropout=0.2),
    "by length": Recipe(order="by length"),
    "average": Recipe(average_last=0.3),
    "no decay": Recipe(weight_decay=0.0),
}


@dataclass(frozen=True)
class Material:
    """What one trial learns from and is measured on."""

    train: Sequence[Example]
    held_out: Sequence[Example]


def material(encoder: Encoder, sheet: str, test: str | None, tokens: int, seed: int) -> Material:
    """About `tokens` of the sheet, chosen by the seed, and the held-out pairs, the same for every seed."""
    pairs = find_pairs(sheet).pairs
    parts = split(pairs, 0.2, 42)
    held_out = encoder.examples(find_pairs(test).pairs if test else parts.validation)
    train = encoder.examples(pairs if test else parts.train)
    Random(seed).shuffle(train)
    chosen: list[Example] = []
    while train and sum(len(example.ids) for example in chosen) < tokens:
        chosen.append(train.pop())
    return Material(chosen, held_out)


def trial(model_name: str, data: Material, recipe: Recipe, epochs: float, lr: float, seed: int) -> dict[str, Any]:
    """Train one recipe and measure it."""
    device = pick_device()
    base = load_base(model_name, pick_dtype(device), device)
    model = _attach(base.model, recipe, base.name_for_peft, seed)
    parameters = [parameter for _, parameter in lora.trainable(model)]
    optimizer = _TwoRates(model, recipe.b_ratio, recipe.weight_decay)
    train = [replace(example, prompt_length=1) if recipe.question_tokens else example for example in data.train]
    order = StepOrder(len(train), PER_STEP, seed)
    steps = math.ceil(order.steps_per_epoch * epochs)
    held_out = validation_batches(data.held_out, 2048)
    mean = [torch.zeros_like(parameter) for parameter in parameters]
    averaged = 0
    start = time.perf_counter()
    with proven_row_loss(model, train) as (row_loss, _), _noisy_embeddings(model, recipe.neftune, train):
        first = validation_loss(model, row_loss, held_out)
        model.train()
        for step in range(1, steps + 1):
            chosen = [train[index] for index in _indices(order, step - 1, recipe.order, train)]
            step_gradients(
                row_loss,
                parameters,
                micro_batches(chosen, PER_STEP),
                max_grad_norm=1.0,
                seed=seed * 1_000_003 + step,
                loss_scale=LossScale(),
            )
            move_weights(optimizer, lr * _share(recipe, step, steps))
            if step > steps * (1 - recipe.average_last):
                averaged += 1
                for total, parameter in zip(mean, parameters, strict=True):
                    total += parameter.detach()
        if averaged:
            with torch.no_grad():
                for total, parameter in zip(mean, parameters, strict=True):
                    parameter.copy_(total / averaged)
        learned = validation_loss(model, row_loss, validation_batches(data.train, 2048))
        loss = validation_loss(model, row_loss, held_out)
    return {
        "held_out": loss,
        "before": first,
        "on_training_pairs": learned,
        "steps": steps,
        "pairs": len(train),
        "seconds": time.perf_counter() - start,
    }


def _attach(model: Any, recipe: Recipe, name: str, seed: int) -> PeftModel:
    config = LoraConfig(
        r=recipe.r,
        lora_alpha=recipe.alpha,
        lora_dropout=recipe.dropout,
        use_rslora=recipe.rslora,
        target_modules=lora.target_modules(model, LoraSettings().target_modules),
        task_type="CAUSAL_LM",
        base_model_name_or_path=name,
    )
    torch.manual_seed(seed)
    return get_peft_model(model, config)


class _TwoRates(torch.optim.AdamW):
    """AdamW where the B matrices learn `ratio` times as fast (LoRA+, Hayou et al. 2024, arXiv:2402.12354)."""

    def __init__(self, model: PeftModel, ratio: float, weight_decay: float) -> None:
        named = lora.trainable(model)
        super().__init__(
            [
                {"params": [p for name, p in named if "lora_B" not in name], "ratio": 1.0},
                {"params": [p for name, p in named if "lora_B" in name], "ratio": ratio},
            ],
            lr=0.0,
            weight_decay=weight_decay,
            fused=True,
        )

    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            group["lr"] *= group["ratio"]
        return super().step(closure)


@contextmanager
def _noisy_embeddings(model: PeftModel, alpha: float, train: Sequence[Example]) -> Iterator[None]:
    """NEFTune (Jain et al. 2023, arXiv:2310.05914): uniform noise of alpha / sqrt(L d), L the mean length here."""
    if not alpha:
        yield
        return
    length = statistics.mean(len(example.ids) for example in train)

    def noisy(ids: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        embedded = plain(ids, weight)
        if not model.training:
            return embedded
        reach = alpha / math.sqrt(length * embedded.shape[-1])
        return embedded + torch.empty_like(embedded).uniform_(-reach, reach)

    plain, layers.embedding = layers.embedding, noisy  # the fast layers look their embedding up as a function
    try:
        yield
    finally:
        layers.embedding = plain


def _indices(order: StepOrder, step: int, how: str, train: Sequence[Example]) -> list[int]:
    if how == "shuffled":
        return order.indices(step)
    # Steps of pairs of like length, the steps themselves shuffled.
    epoch, place = divmod(step, order.steps_per_epoch)
    by_length = sorted(range(order.count), key=lambda index: len(train[index].ids))
    slices = [by_length[start : start + order.per_step] for start in range(0, order.count, order.per_step)]
    Random(f"{order.seed}/{epoch}").shuffle(slices)
    return slices[place]


def _share(recipe: Recipe, step: int, steps: int) -> float:
    warmup = int(steps * recipe.warmup)
    if step <= warmup:
        return step / (warmup + 1)
    if recipe.shape == "constant":
        return 1.0
    left = (steps + 1 - step) / (steps - warmup)
    return left if recipe.shape == "linear" else 0.5 * (1 - math.cos(math.pi * left))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet")
    parser.add_argument("--test")
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--variants", default=",".join(VARIANTS))
    parser.add_argument("--seed", default="0,1,2")
    parser.add_argument("--tokens", type=int, default=4000)
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--to", default="trials.jsonl")
    parser.add_argument("--table", action="store_true", help="print what stands in --to")
    arguments = parser.parse_args()
    if arguments.table:
        print(table(Path(arguments.to)))
        return
    keep_freed_memory()
    for seed in map(int, arguments.seed.split(",")):
        for name in arguments.variants.split(","):
            keep(run(arguments, name, seed), Path(arguments.to))


def run(arguments: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """One trial, and what it was about."""
    base = load_base(arguments.model, pick_dtype(pick_device()), pick_device())
    encoder = Encoder(base.tokenizer, PromptTemplate(), 512)
    data = material(encoder, arguments.sheet, arguments.test, arguments.tokens, seed)
    found = trial(arguments.model, data, VARIANTS[name], arguments.epochs, arguments.lr, seed)
    about = {"sheet": Path(arguments.sheet).stem, "variant": name, "seed": seed, "lr": arguments.lr}
    about["device"] = pick_device().type
    return about | {key: round(value, 4) for key, value in found.items()}


def table(trials: Path) -> str:
    """Every variant against `plain` of the same sheet, seed, rate and device: difference of the held-out loss."""
    rows = [json.loads(line) for line in trials.read_text(encoding="utf-8").splitlines()]
    same = itemgetter("sheet", "seed", "lr", "device")
    plain = {same(row): row["held_out"] for row in rows if row["variant"] == "plain"}
    sheets = list(dict.fromkeys(row["sheet"] for row in rows))
    lines = [["variant", *sheets, "trials"], ["---", *["---:"] * (len(sheets) + 1)]]
    for variant in dict.fromkeys(row["variant"] for row in rows if row["variant"] != "plain"):
        gains: dict[str, list[float]] = {sheet: [] for sheet in sheets}
        for row in rows:
            if row["variant"] == variant and same(row) in plain:
                gains[row["sheet"]].append(row["held_out"] - plain[same(row)])
        cells = [" ".join(f"{gain:+.3f}" for gain in gains[sheet]) for sheet in sheets]
        lines.append([variant, *cells, str(sum(map(len, gains.values())))])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
