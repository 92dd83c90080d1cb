"""C files compiled with the machine's own C compiler when they are first needed, without importing torch.

The library lies in a temporary folder that is gone once it is loaded. PHINETUNE_NATIVE=0 in the environment turns all
of it off, and CC names another compiler.
"""

from __future__ import annotations

import ctypes
import functools
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

_COMPILERS = ("cc", "gcc", "clang")


def compilers() -> list[list[str]]:
    """The commands to try, in order; none where there is no compiler or none is wanted."""
    if os.environ.get("PHINETUNE_NATIVE") == "0":
        return []
    if "CC" in os.environ:
        return [command] if (command := shlex.split(os.environ["CC"])) else []
    return [[path] for path in map(shutil.which, _COMPILERS) if path is not None]


@functools.cache
def has_gcc() -> bool:
    """Whether one of them is GCC: the OpenMP that it compiles for is the one that torch brings along."""
    return any(map(_is_gcc, compilers()))


def _is_gcc(compiler: list[str]) -> bool:
    with suppress(OSError, subprocess.SubprocessError):
        asked = subprocess.run(
            [*compiler, "-dM", "-E", "-x", "c", os.devnull], check=True, capture_output=True, text=True, timeout=60
        )
        return "__GNUC__" in asked.stdout and "__clang__" not in asked.stdout
    return False


def compiled(sources: Sequence[Path], flags: Sequence[str]) -> ctypes.CDLL | None:
    """The C files as one loaded library; None without a compiler that takes them."""
    for compiler in compilers():
        # What cannot be deleted stays: Windows does not let go of a library that is loaded.
        with (
            suppress(OSError, subprocess.SubprocessError),
            tempfile.TemporaryDirectory(prefix="phinetune-", ignore_cleanup_errors=True) as folder,
        ):
            units, library = [Path(folder, f"{source.stem}.o") for source in sources], Path(folder, "kernels.so")
            # Linked without OpenMP's runtime: the names are found in the one that torch has loaded already. Two
            # runtimes would each keep a set of threads spinning on the same cores.
            for source, unit in zip(sources, units, strict=True):
                _run(*compiler, *flags, "-c", str(source), "-o", str(unit))
            _run(*compiler, "-shared", *map(str, units), "-lm", "-o", str(library))
            return ctypes.CDLL(str(library))
    return None


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, timeout=60)
