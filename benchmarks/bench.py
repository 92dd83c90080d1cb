"""What the benchmarks share: a description of the machine, the rate of its matrix products, and `results.md`."""

from __future__ import annotations

import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from phinetune.model.device import describe

RESULTS = Path(__file__).with_name("results.md")


def publish(title: str, command: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: str = "") -> None:
    """Print a table and append it to results.md, with the date, the machine and the versions."""
    table = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    lines = ["| " + " | ".join(row) + " |" for row in table]
    date = f"{datetime.now(UTC):%Y-%m-%d}"
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft"))
    text = f"\n## {title}\n\n`{command}`, {date}, {machine()}; {versions}.\n\n" + "\n".join(lines) + "\n"
    if notes:
        text += f"\n{notes}\n"
    print(text)
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(text)


def keep(found: dict[str, Any], path: Path) -> None:
    """Print what was measured, and append it to `path`, one JSON object a line."""
    line = json.dumps(found)
    print(line, flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def machine() -> str:
    if torch.cuda.is_available():
        return describe(torch.device("cuda"))
    names, families = (
        [line.partition(":")[2].strip() for line in _cpu_info() if line.startswith(trait)]
        for trait in ("model name", "cpu family")
    )
    name = f"{names[0]} family {families[0]}" if names and families else platform.processor()
    has = torch.cpu.get_capabilities()
    units = "AMX" if has.get("amx_tile") else "AVX512 with bf16" if has.get("avx512_bf16") else "no bf16 arithmetic"
    return f"{name} ({units}), {torch.get_num_threads()} threads"


def _cpu_info() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def product_rate(tokens: int, inputs: int, outputs: int, dtype: torch.dtype, device: torch.device) -> float:
    """FLOP/s of `x @ W.T` and `g @ W` for [tokens, inputs] by [outputs, inputs]: the best of 15, what is possible."""
    x = torch.randn(tokens, inputs, device=device).to(dtype)
    weight = torch.randn(outputs, inputs, device=device).to(dtype)
    g = torch.randn(tokens, outputs, device=device).to(dtype)

    def both() -> None:
        x @ weight.T
        g @ weight
        if device.type == "cuda":
            torch.cuda.synchronize()

    return 2 * 2 * tokens * inputs * outputs / min(seconds_of(both, 15))


def seconds_of(work: Callable[[], object], times: int) -> list[float]:
    """The seconds of `times` runs, after one that does not count."""
    seconds = []
    for _ in range(times + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def median_seconds(work: Callable[[], object], times: int) -> float:
    return statistics.median(seconds_of(work, times))


def in_a_process(script: str, *arguments: object) -> dict[str, float]:
    """Run a script with this Python and read the JSON object that it prints last."""
    command = [sys.executable, script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    figures: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return figures
