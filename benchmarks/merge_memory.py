"""Peak memory of `merge` and `gguf`, each with its check, beside what the model and one of its layers take.

    .venv/bin/python benchmarks/merge_memory.py [--layers 32] [--what merge,f16]

Phi-2 with random weights in bf16, at full size or with fewer layers, and an adapter. Needs twice the model's size of
disk in --place. What is counted is what a process of its own has at its peak above what it has after its imports.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import tempfile
import time
from pathlib import Path

from bench import in_a_process, publish
from export_phi2 import make, peak_rss_gb

import phinetune
import phinetune.api.merge
from phinetune.model.folder import tensor_shapes

COLUMNS = ("what", "peak above imports", "the model, bf16", "one layer, fp32", "largest weight, fp32", "time")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--what", default="merge,f16")
    parser.add_argument("--tokenizer", type=Path, help="folder with Phi-2's tokenizer; a toy one otherwise")
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--work", nargs=2, metavar=("RUN", "WHAT"))
    arguments = parser.parse_args()
    if arguments.work:
        print(json.dumps(_work(Path(arguments.work[0]), arguments.work[1])))
        return
    with tempfile.TemporaryDirectory(dir=arguments.place) as place:
        run = make(Path(place), arguments.tokenizer, layers=arguments.layers)
        shapes = tensor_shapes(run.parent / "base" / "model.safetensors")
        numbers = {name: math.prod(shape) for name, shape in shapes.items()}
        layer = sum(count for name, count in numbers.items() if ".layers.0." in name)
        beside = [f"{size / 1e9:.2f} GB" for size in (2 * sum(numbers.values()), 4 * layer, 4 * max(numbers.values()))]
        rows = []
        for what in arguments.what.split(","):
            found = in_a_process(__file__, "--work", run, what)
            rows.append([what, f"{found['peak']:.2f} GB", *beside, f"{found['seconds']:.0f} s"])
    own = "" if arguments.tokenizer is None else "--tokenizer PHI2 "
    command = f"merge_memory.py {own}--layers {arguments.layers} --what {arguments.what}"
    publish("Peak memory of merge and gguf with their checks", command, COLUMNS, rows)


def _work(run: Path, what: str) -> dict[str, float]:
    target = run.parent / "written"
    before, began = peak_rss_gb(), time.perf_counter()
    if what == "merge":
        phinetune.merge(run, target)
        shutil.rmtree(target)
    else:
        [written] = phinetune.export_gguf(run, target, quantize=what)
        written.path.unlink()
    return {"peak": peak_rss_gb() - before, "seconds": time.perf_counter() - began}


if __name__ == "__main__":
    main()
