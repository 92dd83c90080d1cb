"""One writer for a run folder. The lock is the operating system's, which lets go of it however its holder ends.

checkpoints/.lock   {"pid": 4711, "host": "studio", "since": "14:03 on 25 November 2026"}
"""

from __future__ import annotations

import errno
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from phinetune.errors import RunError
from phinetune.run_folder.paths import RunFolder, require_own

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

_HELD_ELSEWHERE = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}
_OWN_FILE = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0)  # a link may lead to anything, and this is emptied
_FAR = 1 << 30  # on Windows a locked byte cannot be read by others; one beyond the text leaves that readable


class InUseError(RunError):
    """Another process is writing to the run folder."""


@contextmanager
def locked(folder: RunFolder) -> Iterator[bool]:
    """Be the only one who writes to the run folder; false where its drive knows no locks.

    The folder is made if need be, and removed again when nothing else was written to it.
    Raises InUseError that names the holder when there is one, RunError when the folder cannot be written, or its
    pictures or checkpoints would be written, and those of before removed, behind a link.
    """
    try:
        for place in (folder.visuals, folder.checkpoints):
            require_own(place, folder.root)
        made = [place for place in (folder.checkpoints, folder.root) if not place.exists()]
        folder.checkpoints.mkdir(parents=True, exist_ok=True)
        handle, is_ours = _acquire(folder)
    except OSError as error:
        is_link = False
        with suppress(OSError):  # a drive that answers nothing
            is_link = folder.lock.is_symlink()
        if is_link:
            raise RunError(
                f"{folder.lock} is a link: what it leads to would be overwritten.",
                "No run of phinetune makes one. Remove it if you trust what else is in the folder.",
            ) from error
        raise RunError(
            f"{folder.root} cannot be written to: {error.strerror}.", "Choose another folder with --out."
        ) from error
    try:
        yield is_ours
    finally:
        _release(handle, folder.lock if is_ours else None)
        for place in made:
            with suppress(OSError):  # not empty: it is used
                place.rmdir()


def _acquire(folder: RunFolder) -> tuple[int, bool]:
    """An open handle, and whether it is locked."""
    while True:
        handle = os.open(folder.lock, _OWN_FILE, 0o666)
        try:
            if not _try(handle):
                raise _in_use(folder)
        except OSError as error:
            if error.errno in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL):
                return handle, False
            os.close(handle)
            raise
        except RunError:
            os.close(handle)
            raise
        try:
            # Between our opening and locking it the last holder may have removed it: then the lock keeps nobody out.
            if _is_at(folder.lock, handle):
                _sign(handle)
                return handle, True
        except OSError:  # a full disk: the handle, left open, would hold the folder as long as this process lives
            _release(handle, folder.lock)
            raise
        os.close(handle)


def _sign(handle: int) -> None:
    owner = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.strftime("%H:%M on %d %B %Y")}
    os.ftruncate(handle, 0)
    os.write(handle, json.dumps(owner).encode())


def _release(handle: int, path: Path | None) -> None:
    with suppress(OSError):  # the drive may have gone
        if path is not None and os.name != "nt" and _is_at(path, handle):
            path.unlink()
    with suppress(OSError):  # what a network drive could not write is said only here
        os.close(handle)
    if path is not None and os.name == "nt":  # an open file cannot be removed there
        with suppress(OSError):
            path.unlink()


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(handle))
    except FileNotFoundError:
        return False


def _try(handle: int) -> bool:
    """Take the lock; false when another holds it. Raises OSError when the drive knows no locks."""
    try:
        if sys.platform == "win32":
            os.lseek(handle, _FAR, os.SEEK_SET)
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            os.lseek(handle, 0, os.SEEK_SET)
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD_ELSEWHERE:
            return False
        raise
    return True


def _in_use(folder: RunFolder) -> InUseError:
    owner = _owner(folder.lock)
    by = f": process {owner['pid']} on {owner['host']}, since {owner['since']}" if owner else ""
    return InUseError(
        f"Another phinetune is writing to {folder.root.resolve()}{by}.",
        "Wait until it has ended, or choose another folder with --out.",
    )


def _owner(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) and found.keys() >= {"pid", "host", "since"} else {}
