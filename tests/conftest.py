"""Fixtures shared by all tests: a toy base model, a sheet, and one finished run to look at."""

from __future__ import annotations

import os
import shutil

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no test talks to a hub that it did not start itself
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as many processes as cores: threads would wait for each other
if shutil.which("nvidia-smi") is None:
    os.environ.setdefault("TRITON_INTERPRET", "1")  # read when Triton is imported, which torch may do

from pathlib import Path

import pytest
import toys
from pictures import drawn_once

import phinetune


@pytest.fixture(scope="session", autouse=True)
def _pictures_drawn_once() -> None:
    drawn_once()


@pytest.fixture(scope="session")
def toy_base(tmp_path_factory) -> Path:
    return toys.save(tmp_path_factory.mktemp("toy") / "base")


@pytest.fixture(scope="session")
def toy_sheet(tmp_path_factory) -> Path:
    pairs = [(f"{q} ({i})", a) for i, (q, a) in enumerate(toys.PAIRS * 5)]
    return toys.write_sheet(tmp_path_factory.mktemp("toy") / "dataset.xlsx", pairs)


@pytest.fixture(scope="session")
def toy_run(toy_base, toy_sheet, tmp_path_factory):
    """A finished run on the toy. Look, do not touch: all tests share it."""
    out = tmp_path_factory.mktemp("run")
    return phinetune.train(
        toy_sheet,
        model=str(toy_base),
        out=out,
        epochs=30,
        lr=1e-2,
        batch_size=2,
        grad_accum=2,
        lora_dropout=0.0,
        patience=0,
        dtype="fp32",  # so that plain code can check its figures to rounding, on any processor
    )
