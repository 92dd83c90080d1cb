"""Take the disk away while a run trains: full, forbidden, removed, failing; in every phase.

    python torture/disk.py            small file systems that fill up, and errors put into every kind of write
    python torture/disk.py --short    a few of each kind

A run survives when it ends in the same adapter as an undisturbed one, or stops with one clear error (exit code 1, no
traceback) that says what is safe, after which --resume on a disk that works ends in the same adapter.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from _row import parser, report, row_of
from _toy import make_base, make_sheet
from _wound import Fault, run, warm_up
from pictures import drawn_once

ADAPTER = "adapter_model.safetensors"
PHASES = ("pairs", "checkpoint", "pruning", "figures", "visuals", "model", "report", "making room")
REASONS = {"full": errno.ENOSPC, "read-only": errno.EROFS, "no permission": errno.EACCES, "failing": errno.EIO}


def main() -> int:
    options = parser("Take the disk away while a run trains.")
    chosen = options.parse_args()
    pick = random.Random(0)
    warm_up()
    drawn = drawn_once() if chosen.short else None  # two thirds of a run on the toy; at length, every run draws its own
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sheet, base, log = make_sheet(folder), make_base(folder), folder / "log.txt"
        command = ["train", str(sheet), "--model", base, "--epochs", "3", "--lr", "0.01", "--batch-size", "2"]
        command += ["--grad-accum", "2", "--set", "train.save_steps=3", "--set", "train.eval_steps=5"]

        def train(out: Path, *flags: str, fault: Fault | None = None) -> tuple[int, str]:
            log.unlink(missing_ok=True)
            code = run([*command, "--out", str(out), *flags], log, fault=fault)
            return code, log.read_text(errors="replace")

        code, said = train(folder / "whole")
        if code:
            print(said, file=sys.stderr)
            return 1
        if drawn is not None:
            drawn.remember(folder / "whole")
        expected = (folder / "whole" / "model" / ADAPTER).read_bytes()
        used = sum(path.stat().st_size for path in (folder / "whole").rglob("*") if path.is_file())
        faults = [(phase, reason, forever) for phase in PHASES for reason in REASONS for forever in (False, True)]
        if chosen.short:
            faults = [("checkpoint", "full", False), ("figures", "read-only", True), ("model", "full", True)]
        rows = [
            row_of(
                "a write fails, once or from then on, by phase and reason", _failing(folder, train, expected, faults)
            )
        ]
        if _may_mount(folder):
            sizes = [0.5] if chosen.short else [i / 20 for i in range(1, 24)]
            rows.append(row_of("small file system that fills up", _filling(folder, train, expected, used, sizes)))
        times = 1 if chosen.short else 8
        if _may_forbid(folder):
            rows.append(row_of("write permission lost during the run", _forbidden(folder, train, expected, times)))
        rows.append(row_of("run folder removed during the run", _removed(folder, train, expected, times, pick)))
    return report(rows, as_json=chosen.json)


Train = Callable[..., tuple[int, str]]


def _failing(folder: Path, train: Train, expected: bytes, faults: list[tuple[str, str, bool]]) -> Iterator[str]:
    for number, (phase, reason, forever) in enumerate(faults):
        out = folder / f"failing-{number}"
        if phase == "making room":
            shutil.copytree(folder / "whole", out)
        flags = ["--overwrite"] if phase == "making room" else []
        ended = train(out, *flags, fault=Fault(phase, REASONS[reason], forever, mark := folder / f"failed-{number}"))
        judged = _judged(out, ended, train, expected) if mark.exists() else "no write was reached that could fail"
        yield f"{phase}, {reason}, {'from then on' if forever else 'once'}: " + judged
        shutil.rmtree(out, ignore_errors=True)


def _filling(folder: Path, train: Train, expected: bytes, used: int, sizes: list[float]) -> Iterator[str]:
    for share in sizes:
        with _small_disk(folder / "disk", int(used * share) + 65536) as disk:
            ended = train(disk / "run")
            subprocess.run(["mount", "-o", "remount,size=1g", str(disk)], check=True)
            yield f"room for {share:.0%} of a run: " + _judged(disk / "run", ended, train, expected)


def _forbidden(folder: Path, train: Train, expected: bytes, times: int) -> Iterator[str]:
    """At a certain checkpoint all folders of the run become immutable, for root too."""
    for number in range(times):
        out, steps = folder / f"forbidden-{number}", 3 * (1 + number % 6)
        with _when_there(out / "checkpoints" / f"checkpoint-{steps}", lambda out=out: _let_change(out, "+i")):
            code, said = train(out)
        _let_change(out, "-i")
        if "Operation not permitted" not in said:
            yield f"after checkpoint-{steps}: nothing was forbidden in time"
            continue
        yield f"after checkpoint-{steps}: " + _judged(out, (code, said), train, expected)


def _let_change(out: Path, flag: str) -> None:
    folders = [str(path) for path in (out / "checkpoints", out / "training_visuals", out) if path.is_dir()]
    subprocess.run(["chattr", flag, *folders], check=False, capture_output=True)


def _removed(folder: Path, train: Train, expected: bytes, times: int, pick: random.Random) -> Iterator[str]:
    for number in range(times):
        out, steps = folder / f"removed-{number}", 3 * pick.randint(1, 6)
        gone = lambda out=out: shutil.rmtree(out, ignore_errors=True)  # noqa: E731
        with _when_there(out / "checkpoints" / f"checkpoint-{steps}", gone):
            ended = train(out)
        yield f"after checkpoint-{steps}: " + _judged(out, ended, train, expected)


@contextmanager
def _when_there(path: Path, then: Callable[[], object]) -> Iterator[None]:
    """Do something in a process of its own as soon as a path exists."""
    watcher = os.fork()
    if watcher == 0:
        deadline = time.monotonic() + 60
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        then()
        os._exit(0)
    try:
        yield
    finally:
        os.waitpid(watcher, 0)


def _judged(out: Path, ended: tuple[int, str], train: Train, expected: bytes) -> str:
    """ "" when the run ended well, or stopped clearly and goes on when the disk works again."""
    code, said = ended
    if code not in (0, 1) or "Traceback" in said:
        return f"exit {code}: {said.strip()[-300:]}"
    if code == 1:
        if "Error:" not in said:
            return "stopped without saying why"
        again, said = train(out, "--resume")
        if again == 1 and "--overwrite" in said:  # it was to replace another run, and had not begun
            again, said = train(out, "--overwrite")
        if again:
            return f"cannot go on: {said.strip()[-300:]}"
    adapter = out / "model" / ADAPTER
    if not adapter.is_file():
        return f"exit {code} and no model: {said.strip()[-300:]}"
    return "" if adapter.read_bytes() == expected else "another adapter"


def _may_mount(folder: Path) -> bool:
    try:
        with _small_disk(folder / "trial", 1 << 20):
            return True
    except (OSError, subprocess.CalledProcessError):
        print("file systems cannot be mounted here: those rows are left out", file=sys.stderr)
        return False


def _may_forbid(folder: Path) -> bool:
    """Whether the file system knows immutable folders and we may make them: root on ext4, for one."""
    (trial := folder / "forbidden").mkdir()
    try:
        subprocess.run(["chattr", "+i", str(trial)], check=True, capture_output=True)
        subprocess.run(["chattr", "-i", str(trial)], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        print("permission cannot be taken from this user: that row is left out", file=sys.stderr)
        return False
    return True


@contextmanager
def _small_disk(place: Path, size: int) -> Iterator[Path]:
    """A file system of so many bytes; needs root."""
    place.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=False)


if __name__ == "__main__":
    sys.exit(main())
