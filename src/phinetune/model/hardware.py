"""What a plan knows of devices: memory, number format and speed, by name or as found here, without importing torch.

Rates are FLOP/s that a training step reaches, counted as `step_flop` counts it. Those of CPUs are measured with this
program (benchmarks/results.md). Those of GPUs are the maker's peak for 16-bit matrix products times a share that
training reaches: measured on an H200, an estimate for the others.
"""

from __future__ import annotations

import importlib.metadata
import math
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import psutil

from phinetune.errors import SettingsError
from phinetune.model.compiler import has_gcc
from phinetune.model.footprint import Attention
from phinetune.model.shape import AdapterShape, ModelShape

Dtype = Literal["bf16", "fp16", "fp32"]
ITEMSIZE: dict[Dtype, int] = {"bf16": 2, "fp16": 2, "fp32": 4}

# Shares of the peak that a step is taken to reach. Measured with this program on an H200: Phi-2, rows of 4,200 tokens,
# 37,100 tokens/s (benchmarks/results.md), which is 38 % of it. The only figure for a T4 is of another program: Phi-2,
# 140 steps of 16 pairs padded to 256 tokens, 7.45 s each, which is 9 %.
_UTILISATION = {"T4": 0.09, "A100": 0.35, "H100": 0.38}  # H200 as H100; A100 is a guess
_UTILISATION_OF_OTHERS = 0.1
_FP32_OF_16_BIT = 1 / 8  # products in fp32 on a GPU with matrix units for 16 bits, by the makers' data sheets

# A short row does not fill a GPU: its time is that of reading the weights and of a hundred kernels a layer, forth and
# back. 16 short pairs of Phi-2 took an H200 31 ms by a recorded graph, and its processor 115 to 156 without one.
SECONDS_A_LAYER = 0.97e-3

# FLOP/s of one core in a training step, by the width of the model: small products run slower. Measured on two cores
# with AVX512 bf16 in bf16: SmolLM2 (576) at 477 tokens/s, Phi-2 (2560) at 33.9 (benchmarks/results.md).
_CPU_BF16 = ((576, 120e9), (2560, 177e9))
_CPU_FP32 = ((576, 39e9), (2560, 39e9))  # SmolLM2 on two AVX2 cores, 156 tokens/s (model/device.py); no other width
_EMULATED_BF16 = 0.01  # bf16 without hardware for it: from 130 GFLOP/s to under 1 (model/device.py)


@dataclass(frozen=True)
class Device:
    """A device to plan for. `peak`: FLOP/s of 16-bit products by the data sheet, None on a CPU. `cores`: of a CPU."""

    name: str
    kind: Literal["cpu", "cuda", "mps"]
    memory: int
    dtype: Dtype
    peak: float | None = None
    utilisation: float = _UTILISATION_OF_OTHERS
    cores: int = 1
    has_bf16: bool = True
    found: bool = False

    def attention(self, dtype: Dtype) -> Attention:
        """The fused kernel is for 16-bit numbers on GPUs from compute capability 8.0 on; those have bf16. Ours is
        compiled by GCC for bf16 on a CPU."""
        if self.kind == "cuda" and self.has_bf16 and dtype != "fp32":
            return "flash"
        return "bands" if self.kind == "cpu" and dtype == "bf16" and has_gcc() else "blocks"


# NVIDIA's data sheets: T4 (65 TFLOP/s fp16), A100 SXM (312), H100 and H200 SXM (989, dense). Memory as torch has it.
_GPUS = {
    "t4": Device("T4", "cuda", 15_640_000_000, "fp16", 65e12, _UTILISATION["T4"], has_bf16=False),
    "a100": Device("A100 40 GB", "cuda", 42_400_000_000, "bf16", 312e12, _UTILISATION["A100"]),
    "a100-80gb": Device("A100 80 GB", "cuda", 85_000_000_000, "bf16", 312e12, _UTILISATION["A100"]),
    "h100": Device("H100", "cuda", 85_000_000_000, "bf16", 989e12, _UTILISATION["H100"]),
    "h200": Device("H200", "cuda", 150_100_000_000, "bf16", 989e12, _UTILISATION["H100"]),
}
NAMES = ("auto", "cpu", *_GPUS)


def pick(wanted: str = "auto") -> Device:
    """The named device, or the one that training would find here.

    Raises SettingsError for a name that is not in `NAMES` or one of torch's that is not here.
    """
    name = wanted.lower()
    if name in _GPUS:
        return _GPUS[name]
    if name == "cpu":
        return _this_cpu()
    found = _this_gpu()
    if name == "auto":
        return found or _this_cpu()
    if found is not None and name == found.kind:
        return found
    raise SettingsError(
        f"There is no device called {wanted} to plan for, here or in the table.", f"Choose {', '.join(NAMES)}."
    )


def step_flop(shape: ModelShape, adapter: AdapterShape, tokens: int, answer_tokens: int, *, recompute: bool) -> float:
    """FLOP of a training step over `tokens`.

    The frozen linear layers take 2 FLOP a weight and token forth and 2 back, for the gradient of their input alone;
    the adapter 2 and 4, because its weights get gradients; the head works at answer tokens. Recomputing goes forth
    twice. Attention within short documents is left out.
    """
    weights = shape.layers * sum(layer.inputs * layer.outputs for layer in shape.linear_layers())
    body = tokens * ((6 if recompute else 4) * weights + 6 * adapter.parameters)
    return body + 4.0 * answer_tokens * shape.vocabulary * shape.hidden


def rate(device: Device, shape: ModelShape, dtype: Dtype) -> float | None:
    """FLOP/s that a training step is taken to reach; None where nothing is known (an Apple GPU)."""
    if device.kind == "mps":
        return None
    if device.peak is not None:
        return peak(device, dtype) * device.utilisation
    table = _CPU_FP32 if dtype == "fp32" else _CPU_BF16
    of_a_core = _by_width(table, shape.hidden)
    if dtype != "fp32" and not device.has_bf16:
        of_a_core *= _EMULATED_BF16
    return of_a_core * device.cores


def peak(device: Device, dtype: Dtype) -> float:
    """FLOP/s of a GPU's matrix products at most, in this number format."""
    return (device.peak or 0.0) * (_FP32_OF_16_BIT if dtype == "fp32" else 1.0)


def is_measured(device: Device, dtype: Dtype) -> bool:
    """Whether the rate rests on runs of this program on such a device: CPUs of two cores."""
    return device.kind == "cpu" and (dtype == "fp32" or device.has_bf16)


def _by_width(table: tuple[tuple[int, float], tuple[int, float]], width: int) -> float:
    """Between the two measured widths along a straight line of the logarithm; beyond them, the nearer one."""
    (small, low), (large, high) = table
    share = min(1.0, max(0.0, math.log(width / small) / math.log(large / small)))
    return low + share * (high - low)


def _this_cpu() -> Device:
    has_bf16 = _cpu_has_bf16()
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if sys.platform.startswith("linux"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    words = f"CPU, {cores} core{'s' if cores > 1 else ''}"
    return Device(
        words,
        "cpu",
        int(psutil.virtual_memory().total),
        "bf16" if has_bf16 else "fp32",
        cores=cores,
        has_bf16=has_bf16,
        found=True,
    )


def _cpu_has_bf16() -> bool:
    """As model/device.py asks torch: AMX or AVX512 with bf16, read from what Linux says of the processor."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return False
    flags = {word for line in text.splitlines() if line.startswith("flags") for word in line.split()}
    return bool(flags & {"amx_tile", "avx512_bf16"})


def _this_gpu() -> Device | None:
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Device("Apple GPU", "mps", int(psutil.virtual_memory().total), "fp32", found=True)
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1") or _torch_is_for_cpu() or not shutil.which("nvidia-smi"):
        return None
    query = ["nvidia-smi", "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True)
        name, memory, capability = (part.strip() for part in done.stdout.splitlines()[0].rsplit(",", 2))
        return _gpu_called(name, int(float(memory)) << 20, float(capability) >= 8)
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None


def _gpu_called(name: str, memory: int, has_bf16: bool) -> Device:
    known = next((gpu for key, gpu in _GPUS.items() if key.partition("-")[0].upper() in name.upper()), None)
    peak = known.peak if known else 40e12 if has_bf16 else 15e12
    share = known.utilisation if known else _UTILISATION_OF_OTHERS
    return Device(name, "cuda", memory, "bf16" if has_bf16 else "fp16", peak, share, has_bf16=has_bf16, found=True)


def _torch_is_for_cpu() -> bool:
    try:
        return importlib.metadata.version("torch").endswith("+cpu")
    except importlib.metadata.PackageNotFoundError:
        return True
