"""Which learning rate suits which model? Real models and sheets, at rates around the usual one.

    python benchmarks/learning_rates.py --model MODEL --sheet TRAIN.xlsx --test TEST.xlsx
                                        [--rates 2e-4,0.5x,1x,2x,4x] [--limit 120] [--seed 0]
    python benchmarks/learning_rates.py --table     prints what was measured so far; quality.md tells what it means

`2x` is twice what LoRA usually likes in a model of this width (training/learning_rate.py). Every run trains the same
adapter (r 16, every linear layer) on the same pairs in the same order: 8 pairs a step, five epochs; a tenth of the
pairs picks the best state, which is measured on the pairs of --test, in nats per answer token.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from bench import keep

from phinetune.model import lora
from phinetune.model.device import keep_freed_memory, pick_device, pick_dtype
from phinetune.model.load import load_base
from phinetune.run_folder import RunFolder
from phinetune.settings import EMBEDDED_MODEL, LoraSettings, TrainSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.sheet.split import split
from phinetune.tokens.batch import validation_batches
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.check import proven_row_loss
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.learning_rate import usual_rate
from phinetune.training.loop import Corpus, fit
from phinetune.training.step import validation_loss

MEASURED = Path(__file__).with_suffix(".jsonl")
_PAIRS_A_STEP = 8


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default=EMBEDDED_MODEL)
    parser.add_argument("--sheet")
    parser.add_argument("--test")
    parser.add_argument("--rates", default="2e-4,0.5x,1x,2x,4x")
    parser.add_argument("--limit", type=int, default=120)
    parser.add_argument("--questions", type=int, default=100, help="held-out questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(_table())
        return
    keep_freed_memory()
    for rate in arguments.rates.split(","):
        keep(measure(arguments, rate), MEASURED)


def measure(arguments: argparse.Namespace, rate: str) -> dict[str, Any]:
    """Train at one rate; the held-out loss of the best state."""
    device = pick_device()
    base = load_base(arguments.model, pick_dtype(device), device)
    encoder = Encoder(base.tokenizer, PromptTemplate(), 512)
    parts = split(find_pairs(arguments.sheet, limit=arguments.limit).pairs, 0.1, arguments.seed)
    train, validation = encoder.examples(parts.train), encoder.examples(parts.validation)
    held_out = encoder.examples(find_pairs(arguments.test, limit=arguments.questions).pairs)
    width = base.model.config.hidden_size
    model = lora.attach(base.model, LoraSettings(), base.name_for_peft, seed=arguments.seed)
    settings = TrainSettings(
        learning_rate=round(usual_rate(width) * float(rate[:-1]), 6) if rate.endswith("x") else float(rate),
        batch_size=_PAIRS_A_STEP,
        grad_accum=1,
        seed=arguments.seed,
        patience=0,
        eval_steps=-(-len(train) // _PAIRS_A_STEP),
        save_steps=10**6,
    )
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        *events, finished = fit(model, Corpus(train, validation), settings, checkpoints, pairs_per_row=_PAIRS_A_STEP)
    seconds = time.perf_counter() - start
    with proven_row_loss(model, held_out) as (row_loss, _):
        loss = validation_loss(model, row_loss, validation_batches(held_out, 512))
    return {
        "model": Path(arguments.model).name.removesuffix(".gguf"),
        "width": width,
        "sheet": Path(arguments.sheet).stem,
        "seed": arguments.seed,
        "rate": rate,
        "learning_rate": settings.learning_rate,
        "pairs": len(train),
        "held_out": len(held_out),
        "steps": finished.step,
        "best_step": finished.best_step,
        "validation": [round(event.eval_loss, 4) for event in events if hasattr(event, "eval_loss")],
        "loss": round(loss, 4),
        "seconds": round(seconds, 1),
        "device": device.type,
    }


def _table() -> str:
    """A line for each model and sheet, the held-out loss at every rate, the lowest of several bold."""
    rows = [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]
    rates = sorted({row["rate"] for row in rows}, key=lambda rate: float(rate[:-1]) if rate.endswith("x") else 0.0)
    lines = [f"| model | width | sheet | {' | '.join(rates)} |", f"| --- | ---: | --- |{' ---: |' * len(rates)}"]
    for model, width, sheet in sorted({(row["model"], row["width"], row["sheet"]) for row in rows}):
        loss = {row["rate"]: row["loss"] for row in rows if (row["model"], row["sheet"]) == (model, sheet)}
        shown = {rate: f"{value:.3f}" for rate, value in loss.items()}
        if len(loss) > 1:
            lowest = min(loss, key=loss.__getitem__)
            shown[lowest] = f"**{shown[lowest]}**"
        lines.append(f"| {model} | {width} | {sheet} | {' | '.join(shown.get(rate, '') for rate in rates)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
