"""What is trained in the torture: a toy model and its sheet, or the embedded model; and what of a run must be equal."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: threads do not survive a fork
os.environ.setdefault("PYTORCH_NVML_BASED_CUDA_CHECK", "1")  # asks for a GPU without CUDA, which does not either
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import toys

MEASURED = {"seconds", "real_tokens_per_s", "peak_memory_gb"}
LEFTOVERS = (".partial-*", ".replaced-*", ".lock", "model.before")


def make_sheet(folder: Path, pairs: int = 30) -> Path:
    rows = [(f"{question} ({i})", answer) for i, (question, answer) in enumerate(toys.PAIRS * (pairs // 6))]
    return toys.write_sheet(folder / "dataset.xlsx", rows)


def make_base(folder: Path) -> str:
    return str(toys.save(folder / "base"))


def what_counts(root: Path) -> dict[str, str]:
    """Everything of a finished run that does not depend on the clock, by name: for comparing two runs."""
    model, visuals, checkpoints = root / "model", root / "training_visuals", root / "checkpoints"
    files = [path for path in model.rglob("*") if path.is_file() and path.name != "README.md"]  # it tells the time
    files += [*visuals.glob("*.png"), visuals / "data_findings.json", visuals / "training_config.json"]
    files += [checkpoints / "pairs.jsonl", *checkpoints.glob("checkpoint-*/*.safetensors")]
    found = {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    found["metrics.csv"] = json.dumps(_without_time(csv.DictReader((visuals / "training_metrics.csv").open())))
    found["metrics.json"] = json.dumps(_without_time([json.loads((visuals / "training_metrics.json").read_text())]))
    return found


def differences(expected: dict[str, str], root: Path) -> list[str]:
    """What of a finished run is not as expected, in words."""
    try:
        found = what_counts(root)
    except OSError as error:
        return [f"{error.filename} is missing"]
    wrong = [name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)]
    wrong += [f"{entry.relative_to(root)} was left" for pattern in LEFTOVERS for entry in root.rglob(pattern)]
    steps = [int(row["step"]) for row in json.loads(found["metrics.csv"]) if row["train_loss"]]
    if steps != list(range(1, len(steps) + 1)):
        wrong.append(f"the steps are {steps}")
    return sorted(wrong)


def _without_time(rows: object) -> list[dict[str, object]]:
    return [{name: value for name, value in row.items() if name not in MEASURED} for row in rows]  # type: ignore[attr-defined]
