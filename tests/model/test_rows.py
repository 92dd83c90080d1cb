"""The fast way through a model against transformers' own forward with PEFT's own adapters."""

from __future__ import annotations

import pytest
import torch
import toys
from transformers import MistralConfig, MistralForCausalLM, Qwen2Config, Qwen2ForCausalLM

from phinetune.model import lora
from phinetune.model.rows import fast_row_loss, plain_row_loss
from phinetune.settings import LoraSettings
from phinetune.tokens.batch import lay_out
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate

_TRAITS = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.1,
    "eos_token_id": 0,
}


def _qwen2():
    torch.manual_seed(0)
    return Qwen2ForCausalLM(Qwen2Config(**_TRAITS)).eval()


def _mistral():
    torch.manual_seed(0)
    return MistralForCausalLM(MistralConfig(**_TRAITS)).eval()


def _row():
    pairs = [toys.Pair(q * (1 + i % 3), a * (1 + i % 2), i) for i, (q, a) in enumerate(toys.PAIRS)]
    return lay_out(Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs))


def _adapted(base, dtype=torch.float32, **changes):
    model = lora.attach(base.to(dtype), LoraSettings(**{"r": 4, "dropout": 0.0} | changes), "toy", seed=1)
    for name, parameter in lora.trainable(model):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model.train()


def _loss_and_gradients(model, row_loss):
    row = _row()
    loss = row_loss(row)
    return loss.detach(), torch.autograd.grad(loss, [p for _, p in lora.trainable(model)])


def _both(model):
    fast = _loss_and_gradients(model, fast_row_loss(model))
    with plain_row_loss(model) as plain:
        return fast, _loss_and_gradients(model, plain)


@pytest.mark.parametrize("make", [toys.phi, toys.llama, _qwen2, _mistral])
@pytest.mark.parametrize("targets", ["all", "attention", "minimal"])
def test_loss_and_gradients_equal_the_models_own(make, targets):
    (loss, gradients), (plain, reference) = _both(_adapted(make(), target_modules=targets))
    torch.testing.assert_close(loss, plain, rtol=1e-5, atol=0)
    for ours, theirs in zip(gradients, reference, strict=True):
        assert theirs.abs().max() > 0
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("make", [toys.phi, toys.llama])
@pytest.mark.parametrize(("dtype", "loss_tolerance", "tolerance"), [(torch.bfloat16, 1e-2, 0.15)])
def test_in_bf16_it_is_no_farther_from_fp32_than_the_models_own(make, dtype, loss_tolerance, tolerance):
    (short, gradients), (short_plain, plain_gradients) = _both(_adapted(make(), dtype))
    model = _adapted(make().to(dtype).float())
    with plain_row_loss(model) as plain:
        exact, exact_gradients = _loss_and_gradients(model, plain)
    assert abs(short - exact) <= abs(short_plain - exact) + loss_tolerance * exact

    def error(of):
        differences = zip(of, exact_gradients, strict=True)
        return float(
            sum((a - b).square().sum() for a, b in differences) / sum(b.square().sum() for b in exact_gradients)
        )

    assert error(gradients) ** 0.5 < tolerance
    assert error(gradients) ** 0.5 < 1.2 * error(plain_gradients) ** 0.5


@pytest.mark.parametrize("make", [toys.phi, toys.llama])
def test_recomputed_activations_change_nothing_dropout_included(make):
    results = []
    for recompute in (False, True):
        model = _adapted(make(), dropout=0.3)
        if recompute:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
            assert model.get_base_model().model.layers[0].gradient_checkpointing
        torch.manual_seed(3)
        results.append(_loss_and_gradients(model, fast_row_loss(model)))
    assert results[0][0] == results[1][0]
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("make", [toys.phi, toys.llama])
def test_losses_by_token_sum_to_that_of_the_row(make, monkeypatch):
    monkeypatch.setattr("phinetune.model.rows._LOGITS_AT_ONCE", 7)
    model, row = _adapted(make()).eval(), _row()
    with torch.no_grad():
        losses = fast_row_loss(model).token_losses(row)
        assert losses.shape == row.targets.shape
        torch.testing.assert_close(losses.sum(), fast_row_loss(model)(row), rtol=1e-5, atol=0)


def test_a_switched_off_adapter_is_the_base_model():
    model = _adapted(toys.llama()).eval()
    row = _row()
    with torch.no_grad():
        tuned = fast_row_loss(model)(row)
        with model.disable_adapter(), plain_row_loss(model) as plain:
            base, base_plain = fast_row_loss(model)(row), plain(row)
    assert base != tuned
    torch.testing.assert_close(base, base_plain, rtol=1e-5, atol=0)


@pytest.mark.parametrize(
    "base",
    [
        toys.phi(qk_layernorm=True),
        toys.phi(resid_pdrop=0.1),
        toys.phi(hidden_act="relu"),
        toys.llama(hidden_act="gelu"),
        toys.llama(attention_dropout=0.1),
    ],
    ids=["qk_layernorm", "resid_pdrop", "relu", "gelu", "attention_dropout"],
)
def test_what_the_layers_do_not_write_out_is_left_to_the_model(base):
    assert fast_row_loss(_adapted(base)) is None


def test_fifty_steps_on_the_fast_way_overlay_the_plain_way():
    def curve(fast: bool) -> list[float]:
        model, row = _adapted(toys.phi()), _row()
        optimizer = torch.optim.AdamW([p for _, p in lora.trainable(model)], lr=3e-3)
        losses = []
        with plain_row_loss(model) as plain:
            way = fast_row_loss(model) if fast else plain
            for _ in range(50):
                loss = way(row) / row.answer_tokens
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
        return losses

    plain, fast = curve(False), curve(True)
    assert plain[-1] < 0.5 * plain[0]
    assert fast == pytest.approx(plain, rel=2e-3)
