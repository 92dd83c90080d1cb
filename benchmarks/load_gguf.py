"""Loading a .gguf base model beside reading its bytes from the disk and copying as many bytes as it unpacks to.

python benchmarks/load_gguf.py [--file MODEL.gguf] [--runs 5]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from bench import median_seconds, publish

from phinetune.model.device import dtype_name, pick_dtype
from phinetune.model.load import find, load_base
from phinetune.settings import EMBEDDED_MODEL


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--file", default=EMBEDDED_MODEL)
    parser.add_argument("--runs", default=5, type=int)
    arguments = parser.parse_args()
    path, cpu = find(arguments.file), torch.device("cpu")
    dtype = pick_dtype(cpu)
    model = load_base(arguments.file, dtype, cpu).model
    unpacked = sum(p.numel() * p.element_size() for p in model.parameters())
    source = torch.ones(unpacked, dtype=torch.uint8)
    load = median_seconds(lambda: load_base(arguments.file, dtype, cpu), arguments.runs)
    read = median_seconds(lambda: _read(path), arguments.runs)
    copy = median_seconds(source.clone, arguments.runs)
    publish(
        f"Loading {path.name}",
        "python benchmarks/load_gguf.py",
        ["what", "seconds", "GB/s"],
        [
            [
                f"load_base: tokenizer, {len(list(model.parameters()))} tensors to {dtype_name(dtype)}",
                f"{load:.2f}",
                f"{unpacked / load / 1e9:.2f} unpacked",
            ],
            ["reading the file (from the system's cache)", f"{read:.2f}", f"{path.stat().st_size / read / 1e9:.2f}"],
            ["copying the unpacked bytes in memory", f"{copy:.2f}", f"{unpacked / copy / 1e9:.2f}"],
        ],
    )


def _read(path: Path) -> int:
    with path.open("rb", buffering=0) as file:
        return sum(len(block) for block in iter(lambda: file.read(1 << 22), b""))


if __name__ == "__main__":
    main()
