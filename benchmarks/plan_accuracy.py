"""The memory that `phinetune plan` names beside the peak of the real run, each run in a process of its own.

    python benchmarks/plan_accuracy.py [--phi2] [--dtype fp32] [--sheet examples/handbook.xlsx]

SmolLM2-135M takes a few steps of `phinetune.train` in several shapes; with --phi2 also Phi-2 at its full size with
random weights (8.5 GB, some minutes). On a GPU the peak is that of torch's allocator, which does not count what CUDA
takes for itself; the plan's part "program" is left out there.
"""

from __future__ import annotations

import argparse
import json
import random
import shlex
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import in_a_process, publish

from phinetune.model.device import dtype_name, pick_device, pick_dtype

HERE = Path(__file__).parent
WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school"]
SMOLLM2 = "smollm2-135m"
PHI2 = "microsoft/phi-2"

# What is trained: pairs of so many words (None: the sheet), and settings.
CASES: list[tuple[str, str, int | None, dict[str, Any]]] = [
    ("SmolLM2, the sheet, 8 pairs a row", SMOLLM2, None, {"batch_size": 8, "grad_accum": 1}),
    ("SmolLM2, the sheet, 16 pairs a row", SMOLLM2, None, {"batch_size": 16, "grad_accum": 1}),
    ("SmolLM2, the sheet, 64 pairs a row", SMOLLM2, None, {"batch_size": 64, "grad_accum": 1}),
    ("SmolLM2, 1 x 512 tokens", SMOLLM2, 600, {"batch_size": 1, "grad_accum": 1}),
    ("SmolLM2, 4 x 512 tokens", SMOLLM2, 600, {"batch_size": 4, "grad_accum": 1}),
    ("SmolLM2, 8 x 128 tokens", SMOLLM2, 100, {"batch_size": 8, "grad_accum": 1}),
    (
        "SmolLM2, 4 x 512 tokens, recomputed",
        SMOLLM2,
        600,
        {"batch_size": 4, "grad_accum": 1, "train.gradient_checkpointing": True},
    ),
]
PHI2_CASES: list[tuple[str, str, int | None, dict[str, Any]]] = [
    ("Phi-2, the sheet, 16 pairs a row", PHI2, None, {"batch_size": 16, "grad_accum": 1}),
]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--sheet", default=HERE.parent / "examples" / "handbook.xlsx", type=Path)
    parser.add_argument("--phi2", action="store_true")
    parser.add_argument("--dtype", default="auto", choices=["auto", "bf16", "fp32"])
    parser.add_argument("--only", default="", help="cases whose name holds this")
    parser.add_argument("--steps", default=3, type=int)
    parser.add_argument("--work", help="a case as JSON: what the processes are started with")
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(work(**json.loads(arguments.work))))
        return
    dtype = dtype_name(pick_dtype(pick_device(), arguments.dtype))
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name, model, words, options in CASES + (PHI2_CASES if arguments.phi2 else []):
            if arguments.only not in name:
                continue
            sheet = arguments.sheet if words is None else long_pairs(Path(folder, f"{words}.csv"), words)
            how = options | {"dtype": dtype}
            case = {"sheet": str(sheet), "model": model, "steps": arguments.steps, "options": how}
            figures = in_a_process(__file__, "--work", json.dumps(case))
            planned, measured = figures["planned_gb"], figures["measured_gb"]
            rows.append([name, f"{planned:.2f} GB", f"{measured:.2f} GB", f"{planned / measured:.2f}"])
            print(*rows[-1], sep="  ", flush=True)
    publish(
        f"Memory planned and measured, {arguments.sheet.stem}, {dtype}",
        shlex.join(["python", "benchmarks/plan_accuracy.py", *sys.argv[1:]]),
        ["run", "planned", "measured peak", "planned / measured"],
        rows,
    )


def long_pairs(path: Path, words: int) -> Path:
    """Sixteen pairs, each a short question and an answer of so many words; a word is a token."""
    draw = random.Random(0)
    lines = [f'"{i} what?","{" ".join(draw.choices(WORDS, k=words))}"' for i in range(16)]
    path.write_text("\n".join(["question,answer", *lines]), encoding="utf-8")
    return path


def work(sheet: str, model: str, steps: int, options: dict[str, Any]) -> dict[str, float]:
    """Plan, then take the steps."""
    import phinetune

    spec = model
    if model == PHI2:
        from train_phi2 import PHI2_TOKENIZER

        spec = str(PHI2_TOKENIZER) if PHI2_TOKENIZER.is_dir() else model
    whole = phinetune.plan(sheet, model=spec, epochs=1, **options)
    few = {"epochs": min(1, steps / whole.steps_per_epoch), **options}
    plan = phinetune.plan(sheet, model=spec, **few)
    train = train_phi2 if model == PHI2 else train_smollm2
    measured = train(sheet, few)
    program = 0 if plan.device.startswith("CPU") else plan.memory["program"]
    return {"planned_gb": (plan.memory_total - program) / 1e9, "measured_gb": measured}


def train_smollm2(sheet: str, options: dict[str, Any]) -> float:
    import phinetune

    with tempfile.TemporaryDirectory() as out:
        peak = phinetune.train(sheet, model=SMOLLM2, out=out, **options).peak_memory_gb
    assert peak is not None
    return peak


def train_phi2(sheet: str, options: dict[str, Any]) -> float:
    """As `phinetune.train` does from the point where the model is loaded: the same pairs, rows and steps."""
    from train_phi2 import phi2, tokenizer

    from phinetune import settings as settings_module
    from phinetune.model import lora
    from phinetune.model.device import bound_kernel_caches, keep_freed_memory, peak_memory_gb
    from phinetune.model.memory import plan_rows
    from phinetune.run_folder import RunFolder
    from phinetune.sheet.pairs import find_pairs
    from phinetune.sheet.split import split
    from phinetune.tokens.encode import Encoder
    from phinetune.tokens.prompt import PromptTemplate
    from phinetune.training.checkpoint import Checkpoints
    from phinetune.training.loop import Corpus, fit

    settings = settings_module.load(flags=options)
    device = pick_device()
    if device.type == "cpu":
        keep_freed_memory()
        bound_kernel_caches()
    parts = split(find_pairs(sheet).pairs, settings.data.validation_share, settings.data.seed)
    encoder = Encoder(tokenizer(), PromptTemplate(), settings.data.max_length)
    corpus = Corpus(encoder.examples(parts.train), encoder.examples(parts.validation))
    base = phi2(pick_dtype(device, settings.train.dtype), device)
    model = lora.attach(base, settings.lora, PHI2, settings.train.seed)
    lengths = [len(example.ids) for example in (*corpus.train, *corpus.validation)]
    train = settings.train
    rows = plan_rows(model.get_base_model(), lengths, train.batch_size, train.examples_per_step, device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        for _ in fit(model, corpus, train, checkpoints, pairs_per_row=rows.pairs_per_row):
            pass
    peak: float = peak_memory_gb(device)
    return peak


if __name__ == "__main__":
    main()
