"""The adapter added into the weights one by one, beside PEFT's own merging."""

from __future__ import annotations

import pytest
import torch
import toys
from peft import LoraConfig, get_peft_model

from phinetune.model.merge import merged_tensors


@pytest.mark.parametrize("changes", [{}, {"use_rslora": True}, {"use_dora": True}])
def test_the_weights_are_those_that_peft_merges(changes):
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=12, target_modules=["q_proj", "down_proj"], **changes)
    model = get_peft_model(toys.llama(), config)
    for name, parameter in model.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    ours = {tensor.name: tensor.make() for tensor in merged_tensors(model)}
    theirs = dict(model.merge_and_unload().named_parameters())
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5)
