"""Copies that are proven: what was read back from the copy has the checksum of the original."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from phinetune.errors import RunError
from phinetune.run_folder.atomic import atomic_file, atomic_folder

_BLOCK = 1 << 20  # bytes


def sha256(path: Path) -> str:
    """The checksum of a file, read from the disk where the system lets us say so, and not from its memory."""
    with path.open("rb") as file:
        if hasattr(os, "posix_fadvise"):
            with suppress(OSError):
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return hashlib.file_digest(file, "sha256").hexdigest()


def copy_file(source: Path, target: Path, on_block: Callable[[int], None] = lambda _: None) -> None:
    """Copy one file, whole or not at all. `on_block` hears how many bytes were written.

    Raises RunError when the source cannot be read, the copy cannot be written, or differs.
    """
    with atomic_file(target, lambda: source.stat().st_size) as temporary:
        _copy(source, temporary, on_block)


def copy_folder(source: Path, target: Path, on_block: Callable[[int], None] = lambda _: None) -> None:
    """Copy the files of a folder, whole or not at all; hidden ones are left. Raises as `copy_file`."""
    with atomic_folder(target, lambda: sum(file.stat().st_size for file in _files(source))) as temporary:
        for file in _files(source):
            place = temporary / file.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            _copy(file, place, on_block)


def _copy(source: Path, target: Path, on_block: Callable[[int], None]) -> None:
    digest = hashlib.sha256()
    with target.open("wb") as writer:
        for block in _blocks(source):
            digest.update(block)
            writer.write(block)
            on_block(len(block))
        writer.flush()
        os.fsync(writer.fileno())  # else reading back would be answered from memory
    if sha256(target) != digest.hexdigest():
        raise RunError(
            f"The copy of {source} in {target.parent} differs from the original.",
            "The drive it was copied to loses or changes data: choose another.",
        )


def _files(folder: Path) -> list[Path]:
    with _reading(folder):
        folder.stat()  # a folder that is not there would pass for an empty one
        return sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))


def _blocks(path: Path) -> Iterator[bytes]:
    with _reading(path), path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Errors in here are of the original, and are not to be taken for those of the copy."""
    try:
        yield
    except OSError as error:
        raise RunError(f"{path} could not be read: {error.strerror or error}.") from error
