"""Decoding with our own cache against the model's own forward over the whole text."""

from __future__ import annotations

import pytest
import torch
import toys

from phinetune.model import lora
from phinetune.model.decode import FastDecoder, PlainDecoder, decoder
from phinetune.settings import LoraSettings

PROMPTS = [[5, 9, 200, 31], [7], [300, 301, 302, 303, 304, 305, 306, 307]]


def _gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    return GPT2LMHeadModel(config).eval()


def _adapted(make, dtype=torch.float32):
    model = lora.attach(make().to(dtype), LoraSettings(r=4, dropout=0.1), "toy", seed=1)
    for name, parameter in lora.trainable(model):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


@torch.inference_mode()
def _written(model, made, steps=60):
    """Greedy texts, dropping the second line after five tokens, and the largest deviation from the plain logits."""
    texts = [list(prompt) for prompt in PROMPTS]
    going, worst = [0, 1, 2], 0.0
    logits = made.start(PROMPTS)
    for step in range(steps):
        for line, index in enumerate(going):
            plain = model(torch.tensor([texts[index]])).logits[0, -1]
            worst = max(worst, float((logits[line] - plain).abs().max()))
        chosen = logits.argmax(-1)
        for index, token in zip(going, chosen.tolist(), strict=True):
            texts[index].append(token)
        if step == 4:
            made.keep(torch.tensor([0, 2]))
            going, chosen = [0, 2], chosen[[0, 2]]
        logits = made.step(chosen)
    return texts, worst


@pytest.mark.parametrize(("make", "kind"), [(toys.phi, FastDecoder), (toys.llama, FastDecoder), (_gpt2, PlainDecoder)])
def test_every_step_equals_a_forward_over_the_whole_text(make, kind):
    model = _adapted(make)
    made = decoder(model)
    assert type(made) is kind
    texts, worst = _written(model, made)
    assert worst < 1e-4
    assert [len(text) for text in texts] == [64, 6, 68]


def test_fp16_and_bf16_stay_near_fp32():
    exact = decoder(_adapted(toys.phi)).start(PROMPTS)
    for dtype, tolerance in ((torch.float16, 1e-2), (torch.bfloat16, 6e-2)):
        made = decoder(_adapted(toys.phi, dtype))
        logits = made.start(PROMPTS)
        assert logits.dtype == dtype
        assert float((logits.float() - exact).norm() / exact.norm()) < tolerance
        assert torch.isfinite(made.step(logits.argmax(-1))).all()


def test_a_switched_off_adapter_writes_as_the_base_model():
    model = _adapted(toys.llama)
    tuned = decoder(model).start(PROMPTS)
    with model.disable_adapter():
        base = decoder(model).start(PROMPTS)
    torch.testing.assert_close(base, decoder(toys.llama()).start(PROMPTS))
    assert not torch.allclose(base, tuned)
