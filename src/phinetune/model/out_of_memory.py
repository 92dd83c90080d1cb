"""Memory that ran out: telling it from other errors, and giving back what a failed try held."""

from __future__ import annotations

import ctypes
import errno
import gc
import sys
from collections.abc import Callable
from typing import TypeVar

import torch
from safetensors import SafetensorError

# What torch and its libraries say in a plain RuntimeError: the CPU's allocator on Linux and macOS, a file that cannot
# be mapped, the CPU's allocator on Windows, C++'s own, GPUs, CUDA's libraries; what Python says of a thread's stack.
_SAID = (
    "can't allocate memory",
    "cannot allocate memory",
    "not enough memory",
    "std::bad_alloc",
    "out of memory",
    "alloc_failed",
    "can't start new thread",
)

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error, or what it was raised from, is a refusal of memory."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, torch.OutOfMemoryError | MemoryError):
            return True
        if isinstance(cause, OSError) and cause.errno == errno.ENOMEM:
            return True
        if isinstance(cause, RuntimeError | OSError | SafetensorError):
            text = str(cause).lower()
            if any(said in text for said in _SAID):
                return True
        cause = cause.__cause__
    return False


def try_twice(compute: Callable[[], Result]) -> Result:
    """`compute()`, and where memory was refused once more, when what the first try held has been given back."""
    try:
        return compute()
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release_memory()
    return compute()


def release_memory() -> None:
    """Give back what nothing refers to any more: cycles of Python, caches of the GPU and of the C library.

    Call it once the error is gone: its traceback holds the tensors of the try that failed.
    """
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
    if sys.platform.startswith("linux"):
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc, which device.keep_freed_memory has told to keep everything
            libc.malloc_trim(0)
