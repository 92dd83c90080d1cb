"""The kept runs, made: each trains a model for real on a small sheet, and leaves the figures that `diagnose` reads.

    PYTHONPATH=src:tests python tests/artifacts/runs/make.py toy_spikes toy_stuck

Each takes some seconds. Numbers differ a little from machine to machine; what they show does not.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import tempfile
from pathlib import Path

import torch
import toys
from transformers import LlamaForCausalLM

import phinetune
from phinetune.run_folder import RunFolder
from phinetune.sheet.findings import Pair
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

HERE = Path(__file__).parent
Pairs = list[tuple[str, str]]

_NAMES = "Maren Tibb Ossel Juno Pell Arda Wick Lorn Fenn Sela Quill Brant Isa Dorrit Hale Vesper Nim Corin Thea Rusk"
_PLACES = "mill harbour tower bakery orchard bridge forge library meadow chapel quarry inn"


def facts(count: int) -> Pairs:
    """Single facts, each asked once: no other pair tells them."""
    draw = random.Random(1)
    names, places = _NAMES.split(), _PLACES.split()
    return [
        (f"Where is {name} {number}?", f"At the {draw.choice(places)}, room {draw.randrange(100, 1000)}.")
        for number, name in enumerate((names * 3)[:count])
    ]


def codes(alphabet: str, count: int, seed: int) -> Pairs:
    """Answers that are drawn, of these letters alone."""
    draw = random.Random(seed)
    return [(f"Code {seed} {n}?", " ".join(draw.choices(alphabet, k=12))) for n in range(count)]


def again() -> Pairs:
    """Sixty questions with six answers: what the held-out ones ask stands in the others too."""
    return [(f"{question} ({n})", answer) for n, (question, answer) in enumerate(toys.PAIRS * 10)]


def garbled() -> Pairs:
    """The same, and one pair whose answer is none."""
    draw = random.Random(2)
    return [*again(), ("What is the key?", "".join(chr(draw.randrange(0x100, 0x250)) for _ in range(40)))]


def settled(pairs: Pairs) -> LlamaForCausalLM:
    """A toy that knows pairs of this kind as well as can be: all its weights were trained on many."""
    model = toys.llama().train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples([Pair(*p, row=1) for p in pairs])
    for start in range(0, len(examples), 8):
        loss = sum(
            model(input_ids=torch.tensor([example.ids]), labels=torch.tensor([example.labels])).loss
            for example in examples[start : start + 8]
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


FAST = {"lr": 1e-2, "batch_size": 4, "grad_accum": 1, "patience": 0, "lora_r": 16, "lora_dropout": 0.0}
FAST |= {"train.eval_steps": 10, "train.save_steps": 1000}
SOME = "abcdefghijklmnopqrstuvwxyz"
LONG = FAST | {
    "epochs": 60,
    "batch_size": 2,
    "lr": 1e-2,
    "lora_r": 32,
    "data.validation_share": 0.5,
    "train.eval_steps": 30,
}
RUNS = {
    "toy_last_knows_more": (facts(24), FAST | {"epochs": 30, "lr": 2e-2, "data.validation_share": 0.5}),
    "toy_by_heart": (facts(24), LONG | {"keep": "last"}),
    "toy_no_better": (codes(SOME, 60, 1), LONG | {"epochs": 20, "batch_size": 4, "train.eval_steps": 16}),
    "toy_spikes": (garbled(), FAST | {"epochs": 3, "batch_size": 1, "lr": 3e-3}),
    "toy_stuck": (codes(SOME[:16], 120, 3), FAST | {"epochs": 4, "lora_r": 1, "target_modules": "minimal"}),
    "toy_answers_cut": (again(), FAST | {"epochs": 6, "max_length": 30, "data.validation_share": 0.2}),
    "toy_healthy": (again(), FAST | {"epochs": 10, "data.validation_share": 0.2, "lora_r": 8}),
}
OF_A_KIND_THAT_IS_KNOWN = {"toy_no_better", "toy_stuck"}


def make(name: str, into: Path) -> RunFolder:
    """Train it, and keep its figures and settings in `into`/name."""
    pairs, options = RUNS[name]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        sheet = toys.write_sheet(work / "sheet.xlsx", pairs)
        base = settled(codes(SOME, 800, 9)) if name in OF_A_KIND_THAT_IS_KNOWN else toys.llama()
        phinetune.train(sheet, out=work / "run", model=str(toys.save(work / "base", base)), **options)
        made, kept = RunFolder(work / "run"), RunFolder(into / name)
        kept.metrics_csv.parent.mkdir(parents=True, exist_ok=True)
        for source, target in ((made.metrics_csv, kept.metrics_csv), (made.metrics_json, kept.metrics_json)):
            shutil.copyfile(source, target)
        config = json.loads(made.config_json.read_text(encoding="utf-8"))
        config["settings"]["model"] = config["settings"]["model"].replace(str(work), "")
        kept.config_json.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    return kept


if __name__ == "__main__":
    for each in sys.argv[1:] or RUNS:
        folder = make(each, HERE)
        print(each)
        for found in phinetune.diagnose(folder.root):
            print(f"  {found.severity:7} {found.name}: {found.sentence}")
