"""Copies that are proven: what was read back from the copy has the checksum of the original."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
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

    Raises OSError when the source cannot be read, RunError when the copy cannot be written or differs.
    """
    with atomic_file(target) as temporary:
        _copy(source, temporary, on_block)


def copy_folder(source: Path, target: Path, on_block: Callable[[int], None] = lambda _: None) -> None:
    """Copy the files of a folder, whole or not at all; hidden ones are left. Raises as `copy_file`."""
    with atomic_folder(target) as temporary:
        for file in sorted(source.rglob("*")):
            if file.is_file() and not file.name.startswith("."):
                place = temporary / file.relative_to(source)
                place.parent.mkdir(parents=True, exist_ok=True)
                _copy(file, place, on_block)


def _copy(source: Path, target: Path, on_block: Callable[[int], None]) -> None:
    digest = hashlib.sha256()
    with source.open("rb") as reader, target.open("wb") as writer:
        while block := reader.read(_BLOCK):
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
