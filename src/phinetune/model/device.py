"""Where to compute and in which number format."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import torch

from phinetune.errors import SettingsError

try:
    import resource
except ModuleNotFoundError:  # on Windows
    resource = None  # type: ignore[assignment]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # from malloc.h
_LARGEST, _AS_USUAL = (1 << 31) - 1, 1 << 17
_SHAPES_KEPT = 256


def pick_device(wanted: str = "auto") -> torch.device:
    """The wanted device, or the best there is.

    Raises SettingsError when the wanted one is not there.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        wanted = next(name for name, present in there.items() if present)
    if wanted not in there:
        raise SettingsError(f"There is no kind of device called {wanted}.", "Choose auto, cuda, mps or cpu.")
    if not there[wanted]:
        raise SettingsError(
            f"The device {wanted} was asked for, but PyTorch {torch.__version__} finds none here.",
            "Leave --device out to use what is there. On Colab: Runtime > Change runtime type > GPU.",
        )
    return torch.device(wanted)


def pick_dtype(device: torch.device, wanted: str = "auto") -> torch.dtype:
    """bf16 where the hardware multiplies it, fp16 on older NVIDIA GPUs, else fp32.

    bf16 on a CPU without AMX or AVX512-BF16 is emulated: on a Zen 3 core `g @ W` of 640 x 10240 by 10240 x 2560
    fell from 130 GFLOP/s in fp32 to under 1.
    """
    if wanted not in ("auto", *DTYPES):
        raise SettingsError(f"There is no number format called {wanted}.", "Choose auto, bf16, fp16 or fp32.")
    if wanted != "auto":
        return DTYPES[wanted]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and cpu_has_bf16() else torch.float32


def cpu_has_bf16() -> bool:
    features = torch.cpu.get_capabilities()
    return bool(features.get("amx_tile") or features.get("avx512_bf16"))


def dtype_name(dtype: torch.dtype) -> str:
    return next(name for name, value in DTYPES.items() if value == dtype)


def device_of(model: torch.nn.Module) -> torch.device:
    """Where the model computes. One whose weights are read when they are needed (streamed.py) does so on the CPU."""
    device = next(model.parameters()).device
    return torch.device("cpu") if device.type == "meta" else device


def keep_freed_memory() -> None:
    """Ask the C library to keep freed memory for the next step instead of returning it to the system.

    A training step frees and takes the same buffers thousands of times, and every page that comes back from the
    system costs a page fault: SmolLM2-135M on two AVX2 cores went from 145 to 156 tokens/s. glibc only.
    """
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)


@contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """`keep_freed_memory` within the block; behind it large buffers go back to the system when they are freed."""
    keep_freed_memory()
    try:
        yield
    finally:
        libc: Any = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
        if hasattr(libc, "mallopt"):
            libc.mallopt(_M_MMAP_THRESHOLD, _AS_USUAL)
            libc.mallopt(_M_TRIM_THRESHOLD, _AS_USUAL)
            libc.malloc_trim(0)


def bound_kernel_caches() -> None:
    """Keep oneDNN and its wrapper in torch from holding the code of a product for every shape they ever met.

    They keep 1024 each at up to 0.7 MB, and rows hardly ever have the same number of tokens: 40 steps of SmolLM2 on 8
    pairs came to 1.84 GB and went on growing, with this they stay at 1.39. A step makes some 80 products of different
    shape, so that all its layers still share their code. Read when the first product is computed.
    """
    for cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
        os.environ.setdefault(cache, str(_SHAPES_KEPT))


def total_memory_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    return int(psutil.virtual_memory().total)


def describe(device: torch.device) -> str:
    """The device in words, such as "Tesla T4, 15 GB" or "CPU, 2 threads"."""
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return f"{properties.name}, {properties.total_memory / 1e9:.0f} GB"
    if device.type == "mps":
        return "Apple GPU"
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' if threads > 1 else ''}"


def peak_memory_gb(device: torch.device) -> float:
    """Highest memory use so far in GB (10⁹ bytes): of the GPU when there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e9
    if resource is None:
        return float(psutil.Process().memory_info().peak_wset) / 1e9
    unit = 1 if sys.platform == "darwin" else 1024  # ru_maxrss counts bytes on macOS, KiB on Linux
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
