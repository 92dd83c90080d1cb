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
from contextlib import suppress
from pathlib import Path

import torch
import toys
from transformers import LlamaForCausalLM

import phinetune
from phinetune.errors import TrainingError
from phinetune.run_folder import RunFolder
from phinetune.sheet.findings import Pair
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

HERE = Path(__file__).parent
Pairs = list[tuple[str, str]]

_NAMES = "Maren Tibb Ossel Juno Pell Arda Wick Lorn Fenn Sela Quill Brant Isa Dorrit Hale Vesper Nim Corin Thea Rusk"
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
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


def spellings() -> Pairs:
    """One question with a letter missing here or there: whatever is held out, the others ask it too."""
    draw = random.Random(6)
    question = "How do I reset the forgotten password of my customer account on the website today?"
    pairs = []
    for number in range(60):
        words = question.split()
        place = draw.choice([3, 5, 6, 9, 10])
        gap = draw.randrange(1, len(words[place]) - 1)
        words[place] = words[place][:gap] + words[place][gap + 1 :]
        pairs.append((" ".join(words), f"Write to the front desk, and they send you a link ({number})."))
    return pairs


def counting() -> Pairs:
    """Answers that are cut before they end, and a third that ends at a place where the others go on."""
    draw = random.Random(4)
    words = _NUMBERS.split()
    ends = [draw.choice([4, 5, 6]) if number % 3 == 0 else len(words) for number in range(90)]
    return [(f"Count, please ({number}).", " ".join(words[:end])) for number, end in enumerate(ends)]


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
    "toy_unstable": (again(), FAST | {"epochs": 3, "lr": 0.9, "dtype": "fp16"}),
    "toy_went_back": (again(), FAST | {"epochs": 4, "lr": 0.07, "dtype": "fp16"}),
    "toy_writes_on": (counting(), FAST | {"epochs": 3, "max_length": 60, "data.validation_share": 0.4}),
    "toy_leak": (spellings(), FAST | {"epochs": 3, "data.validation_share": 0.2}),
    "toy_healthy": (again(), FAST | {"epochs": 10, "data.validation_share": 0.2, "lora_r": 8}),
}
OF_A_KIND_THAT_IS_KNOWN = {"toy_no_better", "toy_stuck"}
WITH_THEIR_PAIRS = {"toy_leak"}  # which of them ask the same, no figure tells


def make(name: str, into: Path) -> RunFolder:
    """Train it, and keep its figures and settings in `into`/name."""
    pairs, options = RUNS[name]
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        sheet = toys.write_sheet(work / "sheet.xlsx", pairs)
        base = settled(codes(SOME, 800, 9)) if name in OF_A_KIND_THAT_IS_KNOWN else toys.llama()
        with suppress(TrainingError):  # a run that could not be held leaves its figures too
            phinetune.train(sheet, out=work / "run", model=str(toys.save(work / "base", base)), **options)
        made, kept = RunFolder(work / "run"), RunFolder(into / name)
        kept.metrics_csv.parent.mkdir(parents=True, exist_ok=True)
        for source, target in ((made.metrics_csv, kept.metrics_csv), (made.metrics_json, kept.metrics_json)):
            shutil.copyfile(source, target)
        if name in WITH_THEIR_PAIRS:
            kept.pairs.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made.pairs, kept.pairs)
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
