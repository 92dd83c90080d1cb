"""The fast LoRA linear against PEFT's own forward, gradients and dropout included."""

from __future__ import annotations

import copy

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import linear

from phinetune.model import dropout, lora
from phinetune.model.fused import Frozen, LoraGroup, fused_adapters
from phinetune.settings import LoraSettings


def _adapted(dropout=0.0, dtype=torch.float32, base=None):
    model = lora.attach((base or toys.phi()).to(dtype), LoraSettings(r=4, dropout=dropout), "toy", seed=1)
    for name, parameter in lora.trainable(model):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model.train()


def _loss_and_gradients(model, ids):
    torch.manual_seed(3)
    loss = model(ids).logits.float().logsumexp(-1).sum()
    return loss.detach(), torch.autograd.grad(loss, [p for _, p in lora.trainable(model)])


@given(
    rows=st.integers(1, 9),
    inputs=st.integers(1, 9),
    outputs=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    ranks=st.lists(st.integers(0, 4), min_size=4, max_size=4),
    bias=st.booleans(),
    gelu=st.booleans(),
    share=st.sampled_from([0.0, 0.2, 0.6]),
)
@settings(deadline=None, max_examples=80)
def test_value_and_gradients_equal_the_plain_formula_under_the_same_dropout(
    rows, inputs, outputs, ranks, bias, gelu, share
):
    """Rank 0 stands for a layer without an adapter."""
    generator = torch.Generator().manual_seed(rows + inputs * sum(outputs))

    def draw(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator).requires_grad_()

    z = draw(rows, inputs)
    x = torch.nn.functional.gelu(z, approximate="tanh") if gelu else z
    layers, adapters, plain = [], [], []
    torch.manual_seed(7)
    has_adapter = any(rank for rank, _ in zip(ranks, outputs, strict=False))
    kept = dropout.draw(x, share if has_adapter else 0.0).dropped(torch.ones_like(x)) / (1 - share)
    for scale, (width, rank) in enumerate(zip(outputs, ranks, strict=False), start=1):
        weight, shift = draw(width, inputs).detach(), draw(width).detach() if bias else None
        layers.append(Frozen(weight, shift, scale / 2 if rank else None))
        plain.append(linear(x, weight, shift))
        if rank:
            a, b = draw(rank, inputs), draw(width, rank)
            adapters += [a, b]
            plain[-1] = plain[-1] + scale / 2 * (x * kept) @ a.T @ b.T
    torch.manual_seed(7)
    fused = LoraGroup.apply(z, layers, share, gelu, *adapters)
    total = plain_total = 0
    for ours, reference in zip(fused, plain, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)
        upstream = torch.randn(ours.shape, generator=generator)
        total, plain_total = total + (ours * upstream).sum(), plain_total + (reference * upstream).sum()
    gradients = [torch.autograd.grad(loss, (z, *adapters), retain_graph=True) for loss in (total, plain_total)]
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [toys.phi, toys.llama])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 6e-2)])
def test_a_whole_model_equals_pefts_forward(make, dtype, tolerance):
    model, ids = _adapted(dtype=dtype, base=make()), torch.arange(1, 20)[None]
    loss, gradients = _loss_and_gradients(model, ids)
    with fused_adapters(model):
        fused_loss, fused_gradients = _loss_and_gradients(model, ids)
    torch.testing.assert_close(fused_loss, loss, rtol=tolerance, atol=0)
    for ours, plain in zip(fused_gradients, gradients, strict=True):
        assert ours.dtype == torch.float32
        assert (ours - plain).norm() <= tolerance * plain.norm() + 1e-7


def test_dropout_acts_in_training_alone_and_a_layers_expectation_is_its_calm_output():
    model = _adapted(dropout=0.3)
    layer = model.get_submodule("base_model.model.model.layers.0.mlp.fc1")
    x = torch.randn(1, 5, 64, generator=torch.Generator().manual_seed(0))
    with fused_adapters(model), torch.no_grad():
        torch.manual_seed(0)
        drawn = torch.stack([layer(x.clone()) for _ in range(2000)])
        model.eval()
        calm = layer(x)
        assert torch.equal(calm, layer(x.clone()))
    spread = drawn.std(0)
    assert float(spread.min()) > 0
    # The mean of 2000 draws of 640 outputs strays by five standard errors once in thousands of runs.
    assert ((drawn.mean(0) - calm).abs() < 5 * spread / 2000**0.5).all()


def test_recomputed_activations_draw_the_same_masks():
    ids = torch.arange(1, 20)[None]
    plain, recomputed = _adapted(dropout=0.3), _adapted(dropout=0.3)
    recomputed.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    results = []
    for model in (plain, recomputed):
        with fused_adapters(model):
            results.append(_loss_and_gradients(model, ids))
    assert results[0][0] == results[1][0]
    for ours, theirs in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_switched_off_adapter_is_left_to_peft_and_everything_is_put_back():
    model, ids = _adapted().eval(), torch.arange(1, 20)[None]
    with torch.no_grad():
        tuned = model(ids).logits
        with fused_adapters(model), model.disable_adapter():
            base = model(ids).logits
        assert torch.equal(base, toys.phi()(ids).logits)
        assert torch.equal(model(ids).logits, tuned)
    assert not any("forward" in vars(module) for module in model.modules())


def test_fifty_steps_on_the_fast_path_overlay_the_plain_path():
    ids = torch.randint(1, 400, (4, 20), generator=torch.Generator().manual_seed(0))

    def curve(fast: bool) -> list[float]:
        model = copy.deepcopy(_adapted())
        optimizer = torch.optim.AdamW([p for _, p in lora.trainable(model)], lr=3e-3)
        losses = []
        for _ in range(50):
            if fast:
                with fused_adapters(model):
                    loss = model(ids, labels=ids).loss
                    loss.backward()
            else:
                loss = model(ids, labels=ids).loss
                loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    plain, fast = curve(False), curve(True)
    assert plain[-1] < 0.7 * plain[0]
    assert fast == pytest.approx(plain, rel=2e-3)
