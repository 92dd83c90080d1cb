"""Writing whole or not at all: files and folders are made under a temporary name beside their place, flushed to the
disk, and renamed.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from phinetune.errors import RunError

# What begins like these is removed or moved at the next start, in the person's own folder too: no name of theirs may.
_TEMPORARY = ".partial-phinetune-"
_ASIDE = ".replaced-phinetune-"  # holds what stood in a folder's place while the new one is moved in

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# What libraries written in Rust and C++ (tokenizers, torch.save) say instead of raising OSError.
_FULL_WORDS = re.compile(r"os error (?:28|122)\b|No space left|PytorchStreamWriter|file write failed")
_DISK_WORDS = re.compile(r"os error \d+|PytorchStreamWriter|file write failed")
# What some network drives say of flushing a folder.
_CANNOT_FLUSH = frozenset({errno.EINVAL, errno.ENOTSUP, errno.ENOSYS, errno.EBADF, errno.EACCES})

Size = Callable[[], int]  # bytes


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


_UMASK = _umask()  # once: it is read by setting it, and a file that another thread makes meanwhile would have no mask


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, whole or not at all.

    Raises RunError when the disk is full or the folder cannot be written.
    """
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_bytes(path: Path, data: bytes) -> None:
    with atomic_file(path, lambda: len(data)) as temporary:
        temporary.write_bytes(data)


@contextmanager
def atomic_file(path: Path, needs: Size | None = None) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends without an error.

    `needs` tells how many bytes it takes, about: asked when the disk is full.
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=_TEMPORARY, suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _let_others_read(temporary, 0o666)
        _flush(temporary)
        temporary.replace(path)
        _flush(path.parent)
    except Exception as error:
        if not _is_of_the_disk(error):
            raise
        _remove(temporary)
        raise _cannot_write(path, error, needs) from error
    finally:
        _remove(temporary)


@contextmanager
def together() -> Iterator[list[Path]]:
    """A list for the files and folders that the block writes: unless it ends without an error, all are removed."""
    written: list[Path] = []
    try:
        yield written
    except BaseException:
        for path in written:
            if path.is_dir():
                discard(path)
            else:
                with suppress(OSError):
                    path.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(path: Path, needs: Size | None = None) -> Iterator[Path]:
    """A temporary folder beside `path` to fill; it becomes `path` when the block ends without an error.

    `needs` is as above.
    A folder already at `path` is replaced as a whole; killed in the middle of that, it returns at the next start
    (`remove_leftovers`).
    """
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
        yield temporary
        _let_others_read(temporary, 0o777)
        for file in temporary.rglob("*"):
            if not file.is_dir() and not file.is_symlink():
                _let_others_read(file, 0o666)  # safetensors writes for its owner alone
            _flush(file)
        _flush(temporary)
        if path.exists():
            old = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=path.parent)) / path.name
            try:
                path.replace(old)
                temporary.replace(path)
                _flush(path.parent)  # before the old one goes
            finally:
                _return_or_remove(old.parent)
        else:
            temporary.replace(path)
        _flush(path.parent)
    except Exception as error:
        if not _is_of_the_disk(error):
            raise
        _remove(temporary)
        raise _cannot_write(path, error, needs) from error
    finally:
        _remove(temporary)


def _remove(temporary: Path | None) -> None:
    if temporary is None:
        return
    if temporary.is_dir():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def discard(path: Path) -> None:
    """Remove a folder: it is gone at once or stays as it was, never half there.

    What cannot be removed, on a disk that has become read-only for one, stays: nobody's work depends on its going.
    """
    with suppress(OSError):
        grave = Path(tempfile.mkdtemp(prefix=_TEMPORARY, dir=path.parent))
        with suppress(OSError):
            path.replace(grave / path.name)
        shutil.rmtree(grave, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process left half-written in `folder`; what it had put aside and not replaced returns."""
    if not folder.is_dir():
        return
    for aside in folder.glob(f"{_ASIDE}*"):
        if not aside.is_symlink():  # what it leads to was put aside by nobody
            _return_or_remove(aside)
    for entry in folder.glob(f"{_TEMPORARY}*"):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            with suppress(OSError):
                entry.unlink(missing_ok=True)


def _return_or_remove(aside: Path) -> None:
    """Move what lies in `aside` back to its place where that is empty, and remove it where it is taken."""
    with suppress(OSError):
        for entry in aside.iterdir():
            if (aside.parent / entry.name).exists():
                shutil.rmtree(entry, ignore_errors=True)
            else:
                entry.replace(aside.parent / entry.name)
        aside.rmdir()


def _let_others_read(path: Path, mode: int) -> None:
    with suppress(PermissionError, NotImplementedError):  # drives that know no permissions refuse to set them
        path.chmod(mode & ~_UMASK)


def _flush(path: Path) -> None:
    if path.is_dir():
        if os.name != "nt":  # Windows flushes no folders
            _flush_with(path, os.O_RDONLY, forgive=_CANNOT_FLUSH)
    else:
        _flush_with(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)


def _flush_with(path: Path, flags: int, forgive: frozenset[int] = frozenset()) -> None:
    handle = os.open(path, flags)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in forgive:
            raise
    finally:
        os.close(handle)


def _is_of_the_disk(error: Exception) -> bool:
    return isinstance(error, OSError | SafetensorError) or (
        not isinstance(error, RunError) and _DISK_WORDS.search(str(error)) is not None
    )


def _cannot_write(path: Path, error: Exception, needs: Size | None) -> RunError:
    said = re.search(r"([^:]+) \(os error \d+\)", str(error))  # what Rust adds to the system's own words
    reason = getattr(error, "strerror", None) or (said[1].strip() if said else str(error))
    return RunError(
        f"{path} could not be written: {reason}.{_room(path, error, needs)}",
        "Free some disk space or choose another folder with --out. Nothing half-written was left behind.",
    )


def _room(path: Path, error: Exception, needs: Size | None) -> str:
    """How much it takes and how much there is, where the disk is full; "" where something else is wrong."""
    if getattr(error, "errno", None) not in _FULL and not _FULL_WORDS.search(str(error)):
        return ""
    needed, free = None, None
    with suppress(Exception):  # a detail of an error that is told in any case
        needed = needs() if needs is not None else None
    with suppress(OSError):
        there = next(place for place in path.absolute().parents if place.exists())
        free = shutil.disk_usage(there).free
    if needed is None:
        return "" if free is None else f" {in_words(free)} are free."
    return f" It takes about {in_words(needed)}" + ("." if free is None else f", and {in_words(free)} are free.")


def in_words(count: int) -> str:
    """A number of bytes: "12 kB", "3.4 MB", "5.60 GB"."""
    if count < 1e6:
        return f"{count / 1e3:.0f} kB"
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.2f} GB"
