"""One optimizer step: the same however it is cut, and equal to the plain padded computation."""

from __future__ import annotations

import copy

import pytest
import torch
import toys
from torch.nn.functional import cross_entropy

from phinetune.model import lora
from phinetune.model.rows import fast_row_loss, plain_row_loss
from phinetune.settings import LoraSettings
from phinetune.tokens.batch import micro_batches
from phinetune.tokens.encode import IGNORED, Encoder, Example
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.step import LossScale, make_optimizer, move_weights, step_gradients, validation_loss


def _examples(count: int = 16) -> list[Example]:
    pairs = [toys.Pair(q * (1 + i % 3), a * (1 + i % 4), i) for i, (q, a) in enumerate(toys.PAIRS * 3)][:count]
    return Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)


def _adapted(base: torch.nn.Module, dtype: torch.dtype = torch.float32):
    model = lora.attach(base.to(dtype), LoraSettings(r=4, dropout=0.0), "toy", seed=1)
    for name, parameter in lora.trainable(model):  # B starts at 0, where A has no gradient to compare
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model.train()


def _step(model, batches, scale: LossScale | None = None, **changes):
    parameters = [p for _, p in lora.trainable(model)]
    optimizer = make_optimizer(parameters, weight_decay=0.01)
    options = {"max_grad_norm": 1e9, "seed": 5, "loss_scale": scale or LossScale()} | changes
    fast = fast_row_loss(model)
    assert fast is not None
    result = step_gradients(fast, parameters, batches, **options)
    move_weights(optimizer, learning_rate=1e-2)
    return result, [p.grad.clone() for p in parameters], [p.detach().clone() for p in parameters]


def _padded_loss_and_gradients(model, examples: list[Example]):
    """The textbook way: pad to the longest, mask, shift, average over answer tokens."""
    longest = max(len(e.ids) for e in examples)
    ids = torch.tensor([[*e.ids, *[0] * (longest - len(e.ids))] for e in examples])
    mask = torch.tensor([[1] * len(e.ids) + [0] * (longest - len(e.ids)) for e in examples])
    labels = torch.tensor([[*e.labels, *[IGNORED] * (longest - len(e.ids))] for e in examples])
    logits = model(input_ids=ids, attention_mask=mask).logits.float()
    loss = cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten())
    return loss, torch.autograd.grad(loss, [p for _, p in lora.trainable(model)])


@pytest.mark.parametrize("make", [toys.phi, toys.llama])
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_step_equals_the_plain_padded_computation(make, batch_size):
    model, examples = _adapted(make()), _examples()
    loss, gradients = _padded_loss_and_gradients(model, examples)
    result, ours, _ = _step(model, micro_batches(examples, batch_size))
    assert result.train_loss == pytest.approx(float(loss), rel=1e-5)
    for a, b in zip(ours, gradients, strict=True):
        assert b.abs().max() > 0
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_four_by_four_equals_sixteen_by_one_and_one_by_sixteen():
    base, examples = toys.phi(), _examples()
    cuts = [_step(_adapted(copy.deepcopy(base)), micro_batches(examples, size)) for size in (4, 16, 1)]
    for result, gradients, weights in cuts[1:]:
        assert result.train_loss == pytest.approx(cuts[0][0].train_loss, rel=1e-6)
        assert result.tokens == sum(len(e.ids) for e in examples)
        assert result.answer_tokens == sum(e.answer_tokens for e in examples)
        for a, b in zip(gradients, cuts[0][1], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)
        for a, b in zip(weights, cuts[0][2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-2, atol=2e-4)


def test_a_neighbour_in_the_row_changes_nothing():
    model, examples = _adapted(toys.phi()), _examples(3)
    with plain_row_loss(model) as plain:
        for way in (plain, fast_row_loss(model)):
            alone = [validation_loss(model, way, micro_batches([e], 1)) * e.answer_tokens for e in examples]
            together = validation_loss(model, way, micro_batches(examples, 3))
            assert together * sum(e.answer_tokens for e in examples) == pytest.approx(sum(alone), rel=1e-6)


def test_dropout_of_a_step_depends_on_its_seed_alone():
    base, batches = toys.phi(), micro_batches(_examples(), 4)

    def losses(seed: int, noise: int) -> float:
        model = lora.attach(copy.deepcopy(base), LoraSettings(r=4, dropout=0.5), "toy", seed=1).train()
        for name, parameter in lora.trainable(model):
            if "lora_B" in name:
                torch.nn.init.constant_(parameter, 0.1)
        torch.manual_seed(noise)
        return _step(model, batches, seed=seed)[0].train_loss

    assert losses(5, noise=1) == losses(5, noise=2)
    assert losses(5, noise=1) != losses(6, noise=1)


def test_fp16_takes_the_step_of_fp32_with_a_loss_scale():
    base, batches = toys.phi(), micro_batches(_examples(), 4)
    exact, gradients, _ = _step(_adapted(copy.deepcopy(base)), batches)
    scale = LossScale.for_dtype(torch.float16)
    half, ours, _ = _step(_adapted(copy.deepcopy(base), torch.float16), batches, scale)
    assert half.train_loss == pytest.approx(exact.train_loss, rel=5e-3)
    assert half.grad_norm == pytest.approx(exact.grad_norm, rel=2e-2)
    for a, b in zip(ours, gradients, strict=True):
        assert a.dtype == torch.float32
        assert torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.99


def test_fp16_overflow_halves_the_scale_and_loses_no_example():
    model, batches = _adapted(toys.phi(), torch.float16), micro_batches(_examples(), 4)
    scale = LossScale(value=2.0**40)
    result, gradients, _ = _step(model, batches, scale)
    assert 1 < scale.value < 2.0**40
    assert result.answer_tokens == sum(b.answer_tokens for b in batches)
    assert all(torch.isfinite(g).all() for g in gradients)


def _with_nan(dtype: torch.dtype = torch.float32):
    model = _adapted(toys.phi(), dtype)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "fc1.base_layer.weight" in n)[0, 0] = float("nan")
    return model


def test_a_loss_that_is_no_number_is_told_and_the_loss_scale_is_not_blamed():
    model, scale = _with_nan(torch.float16), LossScale(value=2.0**16, good_steps=7)
    parameters = [p for _, p in lora.trainable(model)]
    result = step_gradients(
        fast_row_loss(model), parameters, micro_batches(_examples(), 4), max_grad_norm=1.0, seed=5, loss_scale=scale
    )
    assert not result.is_finite
    assert (scale.value, scale.good_steps) == (2.0**16, 7)


def test_moments_that_are_made_beforehand_give_the_step_of_a_fresh_optimizer():
    base, batches = toys.phi(), micro_batches(_examples(), 4)
    _, gradients, ours = _step(_adapted(copy.deepcopy(base)), batches)
    parameters = [p for _, p in lora.trainable(_adapted(copy.deepcopy(base)))]
    fresh = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.01, fused=True)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    fresh.step()
    assert all(torch.equal(a, b) for a, b in zip(parameters, ours, strict=True))


def test_gradients_are_added_up_where_those_of_the_step_before_were():
    model, batches = _adapted(toys.llama()), micro_batches(_examples(), 4)
    parameters = [p for _, p in lora.trainable(model)]
    _, first, _ = _step(model, batches)
    places = [p.grad.data_ptr() for p in parameters]
    _, second, _ = _step(model, batches)
    assert [p.grad.data_ptr() for p in parameters] == places
    assert any(not torch.equal(a, b) for a, b in zip(first, second, strict=True))  # of this step alone
