"""Phi-2 at full size, random weights, with an adapter: written as .gguf, beside reading and writing the same bytes.

    .venv/bin/python benchmarks/export_phi2.py --kinds f16,q4_0

Needs about 14 GB of disk in --place. The files are read back from the disk's cache, so what is measured is the work.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

import torch
from bench import in_a_process, publish
from safetensors.torch import save_file
from transformers import PhiConfig, PhiForCausalLM

COLUMNS = ("kind", "size", "export", "read and write the bytes", "ratio", "peak memory")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kinds", default="f16,q4_0")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--place", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--tokenizer", type=Path, help="folder with Phi-2's tokenizer; a toy one otherwise")
    parser.add_argument("--work", nargs=2, metavar=("RUN", "KIND"))
    arguments = parser.parse_args()
    if arguments.work:
        print(_export(Path(arguments.work[0]), arguments.work[1]))
        return
    with tempfile.TemporaryDirectory(dir=arguments.place) as place:
        run = make(Path(place), arguments.tokenizer)
        rows = []
        for kind in arguments.kinds.split(","):
            runs = [in_a_process(__file__, "--work", run, kind) for _ in range(arguments.repeat)]
            found = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
            ratio = statistics.median(run["export"] / run["copy"] for run in runs)
            rows.append(
                [kind, f"{found['size']:.2f} GB", f"{found['export']:.1f} s", f"{found['copy']:.1f} s",
                 f"{ratio:.2f} x", f"{found['peak']:.1f} GB"]
            )  # fmt: skip
    publish("Export of Phi-2 at full size", f"export_phi2.py --kinds {arguments.kinds}", COLUMNS, rows)


def make(place: Path, tokenizer: Path | None, layers: int = 32) -> Path:
    """A base folder with random bf16 weights and a run folder with an adapter for it; made a layer at a time."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    import toys

    from phinetune.model import lora
    from phinetune.recipe import default_recipe
    from phinetune.settings import LoraSettings

    config = PhiConfig(
        vocab_size=51200, hidden_size=2560, intermediate_size=10240, num_hidden_layers=layers, num_attention_heads=32,
        partial_rotary_factor=0.4, max_position_embeddings=2048, bos_token_id=50256, eos_token_id=50256,
    )  # fmt: skip
    with torch.device("meta"):
        model = PhiForCausalLM(config)
    base, adapter = place / "base", place / "run" / "model"
    base.mkdir()
    adapter.mkdir(parents=True)
    config.save_pretrained(base)
    if tokenizer is not None:
        for file in tokenizer.iterdir():
            if file.name != "config.json" and file.is_file():
                shutil.copyfile(file, base / file.name)
    else:
        toys.tokenizer().save_pretrained(base)
    weights = {
        name: torch.randn(parameter.shape, dtype=torch.bfloat16).mul_(0.02)
        for name, parameter in model.named_parameters()
    }
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    del weights
    adapted = lora.attach(model, LoraSettings(), str(base), seed=0)
    changes = {
        name.replace(".default", ""): torch.randn(parameter.shape) * 0.01 for name, parameter in lora.trainable(adapted)
    }
    adapted.peft_config["default"].save_pretrained(str(adapter))
    save_file(changes, adapter / lora.WEIGHTS, metadata={"format": "pt"})
    default_recipe(str(base)).write(adapter)
    return place / "run"


def _export(run: Path, kind: str) -> str:
    import phinetune
    import phinetune.api.export  # what importing costs is measured by startup.py

    source = run.parent / "base" / "model.safetensors"
    target = run.parent / f"x.{kind}.gguf"
    os.sync()
    began = time.perf_counter()
    [written] = phinetune.export_gguf(run, target, quantize=[kind], check=False)
    seconds = time.perf_counter() - began
    peak_gb = peak_rss_gb()
    os.sync()
    began = time.perf_counter()
    _copy(source, run.parent / "copy", target.stat().st_size)
    copied = time.perf_counter() - began
    (run.parent / "copy").unlink()
    target.unlink()
    return json.dumps({"size": written.megabytes / 1e3, "export": seconds, "copy": copied, "peak": peak_gb})


def _copy(source: Path, target: Path, size: int) -> None:
    """Read the whole of `source`, write `size` bytes, and wait for the disk, as the export does."""
    piece = 1 << 24
    with source.open("rb") as read, target.open("wb") as write:
        while data := read.read(piece):
            if size > 0:
                write.write(data[: min(size, len(data))])
                size -= len(data)
        write.flush()
        os.fsync(write.fileno())


def peak_rss_gb() -> float:
    """Of this program alone: ru_maxrss would begin with what the one that started it had."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e9


if __name__ == "__main__":
    main()
