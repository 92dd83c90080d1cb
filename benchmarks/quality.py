"""Does it learn, and is our recipe better than the guide's? SmolLM2 on real sheets, measured on unseen questions.

    python benchmarks/quality.py --sheet TRAIN.xlsx --test TEST.xlsx [--recipes guide,2e-4,1e-3,auto] [--limit 240]
                                 [--seed 42]
    python benchmarks/quality.py --table            prints what was measured so far; quality.md tells what it means

All recipes train the same LoRA (r 16, every linear layer) on the same pairs in the same order: 16 pairs a step, five
epochs, so the same number of steps. `guide` is the well-known script's: learning rate 2e-4, 100 steps of warm-up,
questions trained like answers, end-of-text masked. The others are ours at the learning rate of their name, with a tenth
of the steps for warm-up, answers and their end alone trained; `auto` is --lr auto. Held out are
the pairs of --test; a tenth of the training pairs picks the best state, for each recipe by its own measure. Losses are
nats per answer token, with the end of the text and without it: the guide's recipe never trained the end. The seed
decides which pairs pick the best state, the adapter's beginning, the order and the dropout.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bench import keep

from phinetune.model import lora
from phinetune.model.device import keep_freed_memory, pick_device, pick_dtype
from phinetune.model.load import load_base
from phinetune.run_folder import RunFolder
from phinetune.settings import EMBEDDED_MODEL, GenerateSettings, LoraSettings, TrainSettings
from phinetune.sheet.pairs import find_pairs
from phinetune.sheet.repeats import answers_repeat
from phinetune.sheet.split import split
from phinetune.tokens.encode import Encoder, Example
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.learning_rate import suited_rate
from phinetune.training.loop import Corpus, fit
from phinetune.use.compare import behaviour, contrasts, pair_losses
from phinetune.use.compare import compare as compare_pairs
from phinetune.use.judge import judge

HERE = Path(__file__).parent
MEASURED = HERE / "quality.jsonl"
_LONGEST = 64  # tokens of an answer
_SEED = 42


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet")
    parser.add_argument("--test")
    parser.add_argument("--recipes", default="guide,2e-4,1e-3,auto")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--questions", type=int, default=100, help="held-out questions that are answered")
    parser.add_argument("--seed", type=int, default=_SEED)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    if arguments.table:
        print(_tables())
        return
    keep_freed_memory()
    for recipe in arguments.recipes.split(","):
        found = measure(arguments.sheet, arguments.test, recipe, arguments.limit, arguments.questions, arguments.seed)
        keep(found, MEASURED)


def measure(sheet: str, test: str, recipe: str, limit: int | None, questions: int, seed: int) -> dict[str, Any]:
    """Train by one recipe and measure both models on the pairs of `test`."""
    device = pick_device()
    base = load_base(EMBEDDED_MODEL, pick_dtype(device), device)
    encoder = Encoder(base.tokenizer, PromptTemplate(), 512)
    parts = split(find_pairs(sheet, limit=limit).pairs, 0.1, seed)
    held_out = find_pairs(test, limit=questions).pairs
    train, validation = encoder.examples(parts.train), encoder.examples(parts.validation)
    model = lora.attach(base.model, LoraSettings(), base.name_for_peft, seed=seed)
    settings = TrainSettings(seed=seed, patience=0, eval_steps=len(train) // 16 + 1, save_steps=10**6)
    start = time.perf_counter()
    if recipe == "guide":
        train, validation = [list(map(_as_the_guide, part)) for part in (train, validation)]
        settings = settings.model_copy(update={"warmup_steps": 100})
    elif recipe == "auto":
        rate = suited_rate(base.model.config.hidden_size, answers_repeat=answers_repeat(parts.train))
        settings = settings.model_copy(update={"learning_rate": rate})
    else:
        settings = settings.model_copy(update={"learning_rate": float(recipe)})
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        *_, finished = fit(model, Corpus(train, validation), settings, checkpoints, pairs_per_row=16)
    seconds = time.perf_counter() - start
    greedy = GenerateSettings(temperature=0.0, max_new_tokens=_LONGEST)
    compared = compare_pairs(model, encoder, held_out, judge("contains", None), greedy)
    scores = contrasts(compared)
    examples = encoder.examples(held_out)
    with model.disable_adapter():
        words_before = _without_end(model, examples)
    return {
        "sheet": Path(sheet).stem,
        "recipe": recipe,
        "seed": seed,
        "device": device.type,
        "learning_rate": settings.learning_rate,
        "pairs": len(train),
        "held_out": len(held_out),
        "steps": finished.step,
        "best_step": finished.best_step,
        "seconds": round(seconds, 1),
        "loss": _interval(scores["loss"]),
        "f1": _interval(scores["f1"]),
        "words": [round(words_before, 4), round(_without_end(model, examples), 4)],
        "stops": [
            round(behaviour([getattr(c, side) for c in compared]).stopped_by_itself, 3) for side in ("base", "tuned")
        ],
    }


def _as_the_guide(example: Example) -> Example:
    """Questions are trained as well, and the end of the text is not."""
    return replace(example, ids=example.ids[:-1], prompt_length=1)


def _without_end(model: Any, examples: Sequence[Example]) -> float:
    """Mean loss per answer token, the end of the text left out."""
    shorter = [replace(example, ids=example.ids[:-1]) for example in examples]
    counts = [example.answer_tokens for example in shorter]
    losses = pair_losses(model, shorter)
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


def _interval(contrast: Any) -> dict[str, Any]:
    return {
        side: [round(value, 4) for value in (found.mean, found.low, found.high)]
        for side, found in (("base", contrast.base), ("tuned", contrast.tuned), ("difference", contrast.difference))
    }


def _tables() -> str:
    """What was measured, as Markdown: one seed in full, then the held-out losses of the others."""
    rows = [json.loads(line) for line in MEASURED.read_text(encoding="utf-8").splitlines()]
    return "\n\n".join((_in_full([row for row in rows if row["seed"] == _SEED]), _of_seeds(rows)))


def _in_full(rows: Sequence[dict[str, Any]]) -> str:
    latest = {(row["sheet"], row["recipe"]): row for row in rows}
    lines = [["sheet", "recipe", "held-out loss", "without the end", "token F1", "stops", "best of steps", "seconds"]]
    for sheet in dict.fromkeys(row["sheet"] for row in rows):
        of_sheet = [row for (name, _), row in latest.items() if name == sheet]
        first = of_sheet[0]
        lines.append(
            [sheet, "base model", _within(first["loss"]["base"]), f"{first['words'][0]:.2f}",
             _within(first["f1"]["base"]), f"{first['stops'][0]:.0%}", "", ""]
        )  # fmt: skip
        for row in of_sheet:
            lines.append(
                ["", _name(row), _within(row["loss"]["tuned"]), f"{row['words'][1]:.2f}",
                 _within(row["f1"]["tuned"]), f"{row['stops'][1]:.0%}", f"{row['best_step']} of {row['steps']}",
                 f"{row['seconds']:.0f}"]
            )  # fmt: skip
    return _markdown(lines, words=2)


def _of_seeds(rows: Sequence[dict[str, Any]]) -> str:
    """The held-out loss of every recipe and sheet, a number for each seed but the one that is told in full."""
    latest = {(row["recipe"], row["sheet"], row["seed"]): row for row in rows if row["seed"] != _SEED}
    sheets, seeds = ({key[place] for key in latest} for place in (1, 2))
    lines = [["recipe", *sorted(sheets)]]
    for recipe in dict.fromkeys(recipe for recipe, _, _ in latest):
        of_recipe = [[latest.get((recipe, sheet, seed)) for seed in sorted(seeds)] for sheet in sorted(sheets)]
        lines.append(
            [recipe, *(" ".join(f"{row['loss']['tuned'][0]:.2f}" for row in each if row) for each in of_recipe)]
        )
    return _markdown(lines, words=1)


def _markdown(lines: Sequence[Sequence[str]], words: int) -> str:
    """`words` columns of words, then numbers."""
    rule = ["---" if place < words else "---:" for place in range(len(lines[0]))]
    return "\n".join(f"| {' | '.join(line)} |" for line in (lines[0], rule, *lines[1:]))


def _name(row: dict[str, Any]) -> str:
    return f"auto: {row['learning_rate']:.1e}" if row["recipe"] == "auto" else row["recipe"]


def _within(estimate: Sequence[float]) -> str:
    mean, low, high = estimate
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
