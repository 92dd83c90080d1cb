from __future__ import annotations

import pytest
import torch
import toys

from phinetune.model import memory
from phinetune.model.memory import RowPlan, activation_bytes, plan_rows

CPU = torch.device("cpu")


def _with_memory(monkeypatch, gigabytes: float) -> None:
    monkeypatch.setattr(memory, "total_memory_bytes", lambda _: int(gigabytes * 1e9))


def test_a_step_is_one_row_where_that_is_cheap(monkeypatch):
    _with_memory(monkeypatch, 8)
    assert plan_rows(toys.phi(), [40] * 100, 4, 16, CPU) == RowPlan(16, recompute=False)


def test_long_pairs_keep_to_the_batch_size_and_longer_ones_are_recomputed(monkeypatch):
    _with_memory(monkeypatch, 0.05)
    model = toys.phi()
    batches = {length: plan_rows(model, [length] * 100, 4, 16, CPU) for length in (16, 500, 2000)}
    assert batches[16].pairs_per_row == 16
    assert batches[500] == RowPlan(4, recompute=False)
    assert batches[2000] == RowPlan(4, recompute=True)


def test_the_longest_pairs_decide_wherever_they_stand(monkeypatch):
    _with_memory(monkeypatch, 0.05)
    few_long = [10] * 100 + [2000] * 4
    assert plan_rows(toys.phi(), few_long, 4, 16, CPU) == plan_rows(toys.phi(), few_long[::-1], 4, 16, CPU)
    assert plan_rows(toys.phi(), few_long, 4, 16, CPU).recompute


def test_the_estimate_grows_with_tokens_and_with_the_width_of_numbers():
    config = toys.phi().config
    assert activation_bytes(config, 200, torch.float32) == 2 * activation_bytes(config, 100, torch.float32)
    assert activation_bytes(config, 100, torch.float32) > 1.1 * activation_bytes(config, 100, torch.bfloat16)


@pytest.mark.skipif(not toys.PHI2.is_dir(), reason="Phi-2's real configuration is not here")
def test_phi2_on_a_free_colab_gpu_trains_the_guides_batch_without_recomputing(monkeypatch):
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(toys.PHI2), dtype=torch.float16)
    _with_memory(monkeypatch, 15.6)
    assert plan_rows(model, [512] * 490, 4, 16, CPU) == RowPlan(4, recompute=False)
    _with_memory(monkeypatch, 8)
    assert plan_rows(model, [512] * 490, 4, 16, CPU) == RowPlan(4, recompute=True)
