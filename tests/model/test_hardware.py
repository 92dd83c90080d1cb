from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from phinetune.errors import SettingsError
from phinetune.model import hardware
from phinetune.model.attend import attention_kind
from phinetune.model.device import DTYPES, dtype_name, pick_device, pick_dtype, total_memory_bytes
from phinetune.model.find_shape import KNOWN
from phinetune.model.hardware import pick, rate, step_flop
from phinetune.model.shape import adapter_shape, read_shape

PHI2 = read_shape(KNOWN["microsoft/phi-2"], "Phi-2")
SMOLLM2 = read_shape(KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"], "SmolLM2")


def test_the_device_found_is_the_one_that_training_takes():
    device = pick_device()
    found = pick()
    assert found.found
    assert found.kind == device.type
    assert found.dtype == dtype_name(pick_dtype(device))
    assert found.memory == pytest.approx(total_memory_bytes(device), rel=0.05)


def test_named_devices_need_none_here():
    assert (pick("t4").dtype, pick("T4").attention("fp16")) == ("fp16", "blocks")
    assert (pick("a100").dtype, pick("h100").attention("bf16")) == ("bf16", "flash")
    assert pick("h100").attention("fp32") == "blocks"


def test_attention_on_a_cpu_is_what_training_takes_there():
    device = pick("cpu")
    for name, dtype in DTYPES.items():
        assert device.attention(name) == attention_kind(torch.device("cpu"), dtype, 64)


def test_an_unknown_device_lists_those_there_are():
    with pytest.raises(SettingsError, match="no device called abacus") as refused:
        pick("abacus")
    assert "t4" in refused.value.hint


@pytest.mark.parametrize(("shape", "tokens_per_s"), [(SMOLLM2, 477), (PHI2, 33.9)])
def test_two_cores_take_the_measured_time(shape, tokens_per_s):
    two_cores = hardware.Device("CPU", "cpu", 24_000_000_000, "bf16", cores=2)
    flop = step_flop(shape, adapter_shape(shape, 16, "all"), 503, 250, recompute=False)
    assert 503 / (flop / rate(two_cores, shape, "bf16")) == pytest.approx(tokens_per_s, rel=0.05)
    four_cores = replace(two_cores, cores=4)
    assert rate(four_cores, shape, "bf16") == 2 * rate(two_cores, shape, "bf16")


def test_imitated_bf16_is_far_slower_than_fp32():
    old = hardware.Device("CPU", "cpu", 8_000_000_000, "fp32", cores=2, has_bf16=False)
    assert rate(old, PHI2, "bf16") < rate(old, PHI2, "fp32") / 20


def test_a_step_costs_what_its_products_cost():
    adapter = adapter_shape(PHI2, 16, "all")
    weights = 32 * (4 * 2560 * 2560 + 2 * 2560 * 10240)
    assert step_flop(PHI2, adapter, 100, 0, recompute=False) == 100 * (4 * weights + 6 * 23_592_960)
    assert step_flop(PHI2, adapter, 100, 0, recompute=True) == 100 * (6 * weights + 6 * 23_592_960)
    with_head = step_flop(PHI2, adapter, 100, 10, recompute=False) - step_flop(PHI2, adapter, 100, 0, recompute=False)
    assert with_head == 4 * 10 * 51200 * 2560


@pytest.mark.parametrize(
    ("name", "expected"), [("Tesla T4", "fp16"), ("NVIDIA A100-SXM4-40GB", "bf16"), ("NVIDIA GeForce RTX 4090", "bf16")]
)
def test_a_gpu_is_known_by_the_name_that_the_driver_gives(monkeypatch, name, expected):
    answer = f"{name}, 16384, {'7.5' if expected == 'fp16' else '8.0'}\n"
    monkeypatch.setattr(hardware, "_torch_is_for_cpu", lambda: False)
    monkeypatch.setattr(hardware.shutil, "which", lambda _: "nvidia-smi")
    monkeypatch.setattr(hardware.sys, "platform", "linux")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(
        hardware.subprocess, "run", lambda *a, **k: subprocess.CompletedProcess(a, 0, stdout=answer, stderr="")
    )
    gpu = pick()
    assert (gpu.name, gpu.dtype, gpu.memory, gpu.found) == (name, expected, 16384 << 20, True)
    assert rate(gpu, PHI2, gpu.dtype) > 0


def test_nothing_here_imports_torch():
    code = "import sys, phinetune.model.hardware as h; h.pick(); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
