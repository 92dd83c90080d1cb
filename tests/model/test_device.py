from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from phinetune.errors import SettingsError
from phinetune.model import device
from phinetune.model.device import describe, dtype_name, peak_memory_gb, pick_device, pick_dtype

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("features", "expected"),
    [({"amx_tile": True}, torch.bfloat16), ({"avx512_bf16": True}, torch.bfloat16), ({"avx2": True}, torch.float32)],
)
def test_a_cpu_computes_in_bf16_only_where_its_hardware_does(monkeypatch, features, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert pick_dtype(CPU) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16")])
def test_a_t4_computes_in_fp16_and_newer_gpus_in_bf16(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    assert dtype_name(pick_dtype(torch.device("cuda"))) == expected


def test_a_format_by_hand_stands():
    assert pick_dtype(CPU, "bf16") == torch.bfloat16


def test_what_is_not_there_is_refused_with_what_is():
    with pytest.raises(SettingsError, match="no kind of device called gpu"):
        pick_device("gpu")
    with pytest.raises(SettingsError, match="no number format called float16"):
        pick_dtype(CPU, "float16")
    if not torch.cuda.is_available():
        assert pick_device() in (CPU, torch.device("mps"))


def test_peak_memory_is_that_of_this_process():
    held = torch.ones(50_000_000)  # 0.2 GB
    assert peak_memory_gb(CPU) > 0.2
    assert held.sum() > 0
    assert "CPU" in describe(CPU)


def test_keeping_freed_memory_is_harmless():
    device.keep_freed_memory()


SHAPES = """
import sys
import torch
from phinetune.model import device

device.bound_kernel_caches()


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


weight = torch.randn(256, 192).bfloat16()
sizes = []
for tokens in range(20, 1220):
    torch.nn.functional.linear(torch.randn(tokens, 192).bfloat16(), weight)
    if tokens in (319, 1219):
        sizes.append(resident())
print(*sizes)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_products_of_ever_new_shapes_do_not_go_on_taking_memory():
    done = subprocess.run([sys.executable, "-c", SHAPES], capture_output=True, text=True, check=True)
    after_300, after_1200 = map(int, done.stdout.split())
    assert after_1200 - after_300 < 100_000_000  # without the bound some 700 MB


def test_a_bound_that_somebody_set_stays(monkeypatch):
    monkeypatch.setenv("LRU_CACHE_CAPACITY", "7")
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    device.bound_kernel_caches()
    assert os.environ["LRU_CACHE_CAPACITY"] == "7"
    assert int(os.environ["ONEDNN_PRIMITIVE_CACHE_CAPACITY"]) >= 128
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY")
