"""A whole job without a network: no module of any library so much as looks up a name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Runs at the start of every Python process of the job, the reader of workbooks too. Sockets within the machine's
# own processes (AF_UNIX, pairs) say nothing to anybody.
WATCH = """
import os, sys

_FORBIDDEN = {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.bind"}
_FORBIDDEN |= {"urllib.Request", "http.client.connect", "pickle.find_class"}

def _watch(event, arguments):
    if event in _FORBIDDEN and not (event.startswith("socket.") and isinstance(arguments[-1], str)):
        with open(os.environ["WATCHED"], "a") as file:
            file.write(f"{event} {arguments!r}\\n")
        if event != "pickle.find_class":
            raise OSError(f"forbidden: {event}")

sys.addaudithook(_watch)
"""

JOB = """
import json, sys
import phinetune
from phinetune.cli import main

base, sheet, out = sys.argv[1:]

def run(*words):
    try:
        main(list(words))
    except SystemExit as done:
        assert not done.code, words

run("check", sheet, "--model", base)
run("plan", sheet, "--model", base)
run("train", sheet, "--model", base, "--out", out, "--epochs", "1", "--dtype", "fp32", "--lr", "1e-2")
run("compare", out, "--limit", "2")
run("report", out)
run("ask", out, "Who?", "--max-new-tokens", "2")
run("answer", out, "--sheet", sheet, "--to", f"{out}/answers.xlsx", "--max-new-tokens", "1")
run("merge", out, "--to", f"{out}/merged")
run("gguf", out, "--to", f"{out}/model.gguf", "--quantize", "f16")
run("verify", out, f"{out}/merged", "--sheet", sheet)
run("pack", out, "--to", f"{out}/packed.zip")
print("the job is done", sorted(name for name in sys.modules if name in ("wandb", "tensorboard", "mlflow")))
"""


def test_a_whole_job_calls_nobody(toy_base: Path, toy_sheet: Path, tmp_path: Path) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    (hooks / "sitecustomize.py").write_text(WATCH)
    calls = tmp_path / "calls"
    paths = [str(hooks), *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "TRANSFORMERS_"))}
    environment |= {"PYTHONPATH": os.pathsep.join(paths), "WATCHED": str(calls), "HF_HOME": str(tmp_path / "cache")}
    # A .xls file would do as well: what counts is that a second process reads it.
    done = subprocess.run(
        [sys.executable, "-c", JOB, str(toy_base), str(toy_sheet), str(tmp_path / "run")],
        capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the job is done []" in done.stdout
    assert not calls.exists(), calls.read_text()[:2000]


def test_the_watch_sees_a_call(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(WATCH)
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "WATCHED": str(tmp_path / "calls")}
    code = "import socket; socket.create_connection(('127.0.0.1', 9))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert "forbidden" in done.stderr
    assert "socket.getaddrinfo" in (tmp_path / "calls").read_text()
