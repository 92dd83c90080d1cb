"""Fetch a model from a hub that fails in every known way, and then again from one that does not.

    python torture/hub.py            every fault, through the command line, some minutes on one core
    python torture/hub.py --short    a few of them

The hub is a stand-in on loopback that serves a toy model. A fault survives when the command ends with exit code 1, the
right words, no traceback and no token, and the same command then finishes, and neither pickles nor code were asked for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import toys
from _row import Row, parser, report, row_since
from toy_hub import NAME, Hub, read_files

TOKEN = "hf_notAnyonesTokenJustLetters"
# What is wrong, what the hub does, what has to be said, and what Python does differently before anything else.
NO_NAMES = "import socket\ndef fail(*_, **__): raise socket.gaierror(-3, 'Temporary failure in name resolution')\n"
NO_NETWORK = "import socket\ndef fail(*_, **__): raise OSError(101, 'Network is unreachable')\n"
SMALL_CHUNKS = "from huggingface_hub import constants\nconstants.DOWNLOAD_CHUNK_SIZE = 65536\n"  # of a small file
PATCH = "socket.getaddrinfo = fail\nsocket.socket.connect = fail\n"


@dataclass(frozen=True)
class Fault:
    what: str
    fault: str
    says: str
    site: str = ""
    in_short: bool = False


FAULTS = (
    Fault("token wrong (401)", "bad_token", r"refused access .* \(HTTP 401\)", in_short=True),
    Fault("token may not read it (403)", "forbidden", r"refused access .* \(HTTP 403\)"),
    Fault("gated model, logged in (403)", "gated", "has to be granted first", in_short=True),
    Fault("gated model, not logged in (401)", "gated_unknown", "has to be granted first"),
    Fault("repository missing (404)", "missing", "no model called"),
    Fault("repository private (401)", "private", "or it is private"),
    Fault("revision missing (404)", "empty", "has no main version"),
    Fault("rate limit (429)", "too_many", "asks to wait"),
    Fault("server error (500)", "error_500", r"could not deliver .* \(HTTP 500\)"),
    Fault("server overloaded (503)", "error_503", r"could not deliver .* \(HTTP 503\)"),
    Fault("login page of a network", "login_page", "is not Hugging Face"),
    Fault("hub that never answers", "hangs", "cannot be reached"),
    Fault("hub down", "down", "cannot be reached", in_short=True),
    Fault("no name server", "", "cannot be reached", NO_NAMES + PATCH),
    Fault("no network", "", "cannot be reached", NO_NETWORK + PATCH),
    Fault("connection broken again and again", "breaks", "the connection broke on the way"),
    Fault("file shorter than it should be", "short", "did not arrive whole"),
    Fault("weights damaged on the way", "damaged_weights", "model.safetensors .* is not what Hugging Face has"),
    Fault("config.json damaged on the way", "damaged_config", "config.json .* is not what Hugging Face has"),
    Fault("disk too small by the hub's sizes", "huge", r"disk is too small .* take 1000000\.00 GB, and .* GB free"),
)


class Scene:
    """A hub, a sheet and a home of its own for every fault."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = read_files(toys.save(folder / "base"))
        self.files |= {"pytorch_model.bin": b"never", "modeling_toy.py": b"raise SystemExit('this must never run')"}
        self.sheet = str(toys.write_sheet(folder / "sheet.xlsx"))
        self.made = 0

    def home(self) -> Path:
        self.made += 1
        place = self.folder / str(self.made)
        place.mkdir()
        return place

    def train(self, home: Path, endpoint: str, *, site: str = "") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {
            "HF_ENDPOINT": endpoint,
            "HF_HOME": str(home / "hf"),
            "HF_TOKEN": TOKEN,
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_ETAG_TIMEOUT": "2",
            "HF_HUB_DOWNLOAD_TIMEOUT": "2",
        }
        if site:
            (home / "site").mkdir(exist_ok=True)
            (home / "site" / "sitecustomize.py").write_text(site)
            environment["PYTHONPATH"] = os.pathsep.join([str(home / "site"), environment.get("PYTHONPATH", "")])
        command = [sys.executable, "-m", "phinetune", "train", self.sheet, "--model", NAME]
        command += ["--out", str(home / "out"), "--epochs", "1"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)


def main() -> int:
    options = parser("Fetch a model from a hub that fails in every known way.").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scene = Scene(Path(folder))
        rows = [_faults(scene, options.short), _goes_on(scene), _from_the_cache(scene, options.short)]
        if not options.short:
            rows += [_garbage(scene), _pickles_alone(scene)]
    return report(rows, as_json=options.json)


def _faults(scene: Scene, short: bool) -> Row:
    chosen = [fault for fault in FAULTS if fault.in_short or not short]
    start, failures = time.monotonic(), []
    for fault in chosen:
        if wrong := _one(scene, fault):
            failures.append(f"{fault.what}: {wrong}")
    return row_since(start, "hub: each fault in its own words, then the same command finishes", len(chosen), failures)


def _one(scene: Scene, fault: Fault) -> str:
    home, hub = scene.home(), Hub(scene.files)
    hub.fault = fault.fault
    if fault.fault == "down":
        hub.close()
    refused = scene.train(home, hub.endpoint, site=fault.site)
    if wrong := _refusal(refused, fault.says):
        return wrong
    hub.fault = ""
    if fault.fault == "down":
        hub = Hub(scene.files)
    done = scene.train(home, hub.endpoint)
    hub.close()
    if wrong := _finished(done, home):
        return f"afterwards: {wrong}"
    asked = [name for name in ("pytorch_model.bin", "modeling_toy.py") if hub.asked_for(name)]
    return f"{asked} were asked for" if asked else ""


def _refusal(done: subprocess.CompletedProcess[str], says: str) -> str:
    shown = done.stdout + done.stderr
    if done.returncode != 1:
        return f"exit code {done.returncode}: {_last(shown)}"
    if not re.search(says, " ".join(done.stderr.split())):
        return f"not said: {_last(done.stderr)}"
    return _clean(shown)


def _clean(shown: str) -> str:
    return "a traceback was shown" if "Traceback" in shown else "the token was shown" if TOKEN in shown else ""


def _finished(done: subprocess.CompletedProcess[str], home: Path) -> str:
    if done.returncode != 0:
        return f"exit code {done.returncode}: {_last(done.stderr)}"
    if not (home / "out" / "model" / "phinetune.json").is_file():
        return "no model"
    return _clean(done.stdout + done.stderr)


def _last(text: str) -> str:
    return " / ".join(text.strip().splitlines()[-3:])[-300:]


def _goes_on(scene: Scene) -> Row:
    """The connection breaks once in the middle of the weights: the command itself goes on."""
    start, home, hub = time.monotonic(), scene.home(), Hub(scene.files)
    hub.fault = "breaks_once"
    done = scene.train(
        home, hub.endpoint, site="from huggingface_hub import constants\nconstants.DOWNLOAD_CHUNK_SIZE = 65536\n"
    )
    hub.close()
    wrong = _finished(done, home)
    resumed = [asked for _, path, asked in hub.requests if path.endswith(".safetensors") and asked]
    if not wrong and len(resumed) != 1:
        wrong = f"{len(resumed)} requests for the rest"
    failures = [wrong] if wrong else []
    return row_since(start, "hub: connection broken once, gone on by Range", 1, failures)


def _from_the_cache(scene: Scene, short: bool) -> Row:
    """A model that is here already needs no hub."""
    start, failures = time.monotonic(), []
    home, hub = scene.home(), Hub(scene.files)
    scene.train(home, hub.endpoint)
    faults = ("error_500",) if short else ("error_500", "bad_token", "too_many", "login_page", "down")
    for number, fault in enumerate(faults):
        hub.fault = fault
        if fault == "down":
            hub.close()
        (home / "out").rename(home / f"out-{number}")
        if wrong := _finished(scene.train(home, hub.endpoint), home):
            failures.append(f"{fault}: {wrong}")
    return row_since(start, "hub: the model is here, the hub is not", len(faults), failures)


def _garbage(scene: Scene) -> Row:
    """The hub itself holds a file that is no model's; it is mended there, with another commit."""
    start, failures = time.monotonic(), []
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        home, hub = scene.home(), Hub(scene.files | {name: b"\x00garbage" * 50})
        if wrong := _refusal(scene.train(home, hub.endpoint), "cannot be loaded|is damaged"):
            failures.append(f"{name}: {wrong}")
        hub.files, hub.commit = scene.files, "d" * 40
        if wrong := _finished(scene.train(home, hub.endpoint), home):
            failures.append(f"{name}, mended: {wrong}")
        hub.close()
    return row_since(start, "hub: garbage in the repository, told and mended", 3, failures)


def _pickles_alone(scene: Scene) -> Row:
    start, home = time.monotonic(), scene.home()
    hub = Hub({name: data for name, data in scene.files.items() if name != "model.safetensors"})
    wrong = _refusal(scene.train(home, hub.endpoint), "no weights in safetensors form")
    if not wrong and hub.asked_for("pytorch_model.bin"):
        wrong = "the pickle was asked for"
    hub.close()
    return row_since(start, "hub: pickled weights alone, refused unasked for", 1, [wrong] if wrong else [])


if __name__ == "__main__":
    sys.exit(main())
