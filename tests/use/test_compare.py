"""Losses of many pairs at once, and the figures made of them."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
import toys

from phinetune.model import lora
from phinetune.model.rows import FastRowLoss, plain_row_loss
from phinetune.settings import LoraSettings
from phinetune.sheet.findings import Pair
from phinetune.tokens.batch import lay_out
from phinetune.tokens.encode import Encoder, Example
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use import compare
from toy_comparison import comparison


def _model(base):
    model = lora.attach(base, LoraSettings(r=4, dropout=0.0), "toy", seed=1)
    for name, parameter in lora.trainable(model):
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(len(name)))
    return model.eval()


def _encoder():
    return Encoder(toys.tokenizer(), PromptTemplate(), 256)


@torch.inference_mode()
def _one_by_one(model, examples):
    with plain_row_loss(model) as plain:
        return [float(plain(lay_out([example]))) / example.answer_tokens for example in examples]


@pytest.mark.parametrize(
    "make", [toys.phi, toys.llama, partial(toys.phi, qk_layernorm=True)], ids=["phi", "llama", "other"]
)
@pytest.mark.parametrize("tokens", [1, 100, 1024])
def test_losses_of_many_pairs_at_once_are_those_one_by_one_in_their_order(make, tokens, monkeypatch):
    monkeypatch.setattr(compare, "_ROW", tokens)
    monkeypatch.setattr("phinetune.model.rows._LOGITS_AT_ONCE", 7)  # answers that lie across two parts of the logits
    model = _model(make())
    pairs = [Pair(f"{q} ({i})", a * (1 + i % 2), i) for i, (q, a) in enumerate(toys.PAIRS * 3)]
    examples = _encoder().examples(pairs)
    found = compare.pair_losses(model, examples)
    assert found == pytest.approx(_one_by_one(model, examples), rel=1e-5)
    assert len({round(loss, 3) for loss in found}) > 6  # a mix-up would show


def test_many_pairs_go_through_the_model_at_once(monkeypatch):
    model, passes = _model(toys.phi()), []
    examples = _encoder().examples([Pair(q, a, i) for i, (q, a) in enumerate(toys.PAIRS * 5)])
    losses = FastRowLoss.token_losses
    monkeypatch.setattr(
        FastRowLoss, "token_losses", lambda self, row: (passes.append(len(row.lengths)), losses(self, row))[1]
    )
    assert len(compare.pair_losses(model, examples)) == sum(passes) == 30
    assert len(passes) < 5


def test_the_losses_of_a_text_are_set_side_by_side_by_paragraph():
    model, encoder = _model(toys.llama()), _encoder()
    texts = [f"{question} {answer}" * (1 + n % 2) for n, (question, answer) in enumerate(toys.PAIRS * 2)]
    found = compare.text_losses(model, encoder, texts)
    examples = [Example(tuple(encoder.text_ids(text)), 1, 0) for text in texts]
    tokens = [example.answer_tokens for example in examples]
    assert found.tuned.mean == pytest.approx(np.average(_one_by_one(model, examples), weights=tokens), rel=1e-5)
    with model.disable_adapter():
        assert found.base.mean == pytest.approx(np.average(_one_by_one(model, examples), weights=tokens), rel=1e-5)
    assert found.base.mean != found.tuned.mean
    assert found.difference.low < found.tuned.mean - found.base.mean < found.difference.high
    assert (found.count, found.too_few) == (12, False)


def test_contrasts_count_the_questions_that_were_judged():
    scores = compare.contrasts(comparison(40, judged=4).pairs)
    assert [(scores[name].count, scores[name].too_few) for name in ("f1", "right")] == [(40, False), (4, True)]


def test_means_weigh_the_loss_by_answer_tokens_and_leave_out_what_was_not_judged():
    pairs = comparison(12, judged=4).pairs
    sides, tokens = [pair.tuned for pair in pairs], [pair.answer_tokens for pair in pairs]
    found = compare.means(sides, tokens)
    assert (found.count, found.judged, found.right) == (12, 4, 0.5)
    assert found.loss == pytest.approx(np.average([side.loss for side in sides], weights=tokens))
    assert compare.means(sides[4:], tokens[4:]).right is None
