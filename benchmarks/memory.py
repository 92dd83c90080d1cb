"""Peak memory of training in batches of 4 x 512 tokens: ours beside the guide's recipe and TRL's, a process each.

    pip install -c constraints.txt 'phinetune[bench]'
    python benchmarks/memory.py [--model FOLDER]

The sheet is made here: every pair fills its 512 tokens. The model is the embedded SmolLM2-135M unless a folder is
given.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from pathlib import Path

from bench import in_a_process, publish
from train_cpu import export

HERE = Path(__file__).parent
RECIPES = {"phinetune": "ours", "TRL": "trl", "the guide's script": "guide"}
WORDS = ["time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", help="folder of a base model; the embedded one when left out")
    parser.add_argument("--dtype", default="bf16")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        sheet = Path(folder, "long.csv")
        draw = random.Random(0)
        lines = [f'"{i} what?","{" ".join(draw.choices(WORDS, k=600))}"' for i in range(16)]
        sheet.write_text("\n".join(["question,answer", *lines]), encoding="utf-8")
        model = arguments.model or folder
        if arguments.model is None:
            export(folder, sheet)
        options = ("--model", model, "--sheet", sheet, "--steps", 1, "--dtype", arguments.dtype, "--batch-size", 4)
        peaks = {
            name: in_a_process(str(HERE / "recipes.py"), recipe, *options)["peak_memory_gb"]
            for name, recipe in RECIPES.items()
        }
    publish(
        f"Peak memory, batches of 4 x 512 tokens, {Path(arguments.model).name if arguments.model else 'SmolLM2-135M'}",
        "python benchmarks/memory.py" + (f" --model {Path(arguments.model).name}" if arguments.model else ""),
        ["recipe", "peak memory", "against phinetune"],
        [[name, f"{peak:.2f} GB", f"{peak / peaks['phinetune']:.2f} x"] for name, peak in peaks.items()],
    )


if __name__ == "__main__":
    main()
