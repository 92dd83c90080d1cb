"""What a model gives back word for word, told from one pass: the same as what it writes when it is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toys

from phinetune.model import lora, rows
from phinetune.settings import GenerateSettings, LoraSettings
from phinetune.sheet.findings import Pair
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training import recall
from phinetune.use import generate


@pytest.fixture(scope="module")
def taught():
    """A toy model that has learned some of its pairs, and none of the others."""
    torch.manual_seed(0)
    encoder = Encoder(toys.tokenizer(), PromptTemplate(), 128)
    pairs = [Pair(question, answer, row) for row, (question, answer) in enumerate(toys.PAIRS)]
    examples = encoder.examples(pairs)
    model = lora.attach(toys.phi(), LoraSettings(r=8, dropout=0.0), "toy", 1)
    optimizer = torch.optim.AdamW([parameter for _, parameter in lora.trainable(model)], lr=1e-2)
    for _ in range(60):
        for example in examples[::2]:
            ids, labels = torch.tensor([example.ids]), torch.tensor([example.labels])
            model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval(), encoder, pairs, examples


def test_one_pass_tells_what_would_be_written_in_rows_of_any_size_and_by_the_plain_way(taught, monkeypatch):
    model, encoder, pairs, examples = taught
    settings = GenerateSettings(temperature=0.0, max_new_tokens=64)
    written = generate.write(model, encoder, [pair.question for pair in pairs], settings)
    same = [w.text == pair.answer and w.end == "end-of-text" for w, pair in zip(written, pairs, strict=True)]
    assert recall.gives_back(model, examples) == same
    assert 0 < sum(same) < len(same)
    assert recall.gives_back(model, examples, tokens_a_row=1) == same
    monkeypatch.setattr(rows, "fast_row_loss", lambda _: None)
    assert recall.gives_back(model, examples) == same


def test_an_answer_that_does_not_end_is_not_given_back(taught):
    model, encoder, _, examples = taught
    known = next(e for e, right in zip(examples, recall.gives_back(model, examples), strict=True) if right)
    unended = replace(known, ids=(*known.ids[:-1], known.ids[-2], encoder.eos_id))
    assert recall.gives_back(model, [unended, known]) == [False, True]


def test_whether_it_would_stop_is_what_stands_after_the_whole_answer(taught, monkeypatch):
    model, encoder, _, examples = taught
    logits = [model(input_ids=torch.tensor([example.ids[:-1]])).logits[0, -1] for example in examples]
    expected = [int(each.argmax()) == encoder.eos_id for each in logits]
    assert recall.would_stop(model, examples) == expected
    assert recall.would_stop(model, examples, tokens_a_row=1) == expected
    assert all(s for s, r in zip(expected, recall.gives_back(model, examples), strict=True) if r)
    untaught = lora.attach(toys.phi(), LoraSettings(r=8), "toy", 1).eval()
    assert not any(recall.would_stop(untaught, examples))
    monkeypatch.setattr(rows, "fast_row_loss", lambda _: None)
    assert recall.would_stop(model, examples) == expected
    (told,) = recall.measure_endings(model, examples, 7)
    assert (told.step, told.asked, told.known) == (7, len(examples), sum(expected))


def test_cut_answers_are_not_asked_for_and_of_many_pairs_the_same_hundred_are(taught):
    _, _, _, examples = taught
    assert recall.choose([replace(examples[0], was_cut=True), examples[1]]) == [examples[1]]
    many = [replace(examples[0], row=row) for row in range(300)]
    assert len(recall.choose(many)) == 100
    assert recall.choose(many) == recall.choose(many)


def test_nothing_is_said_of_no_pairs_and_where_memory_is_short(taught, monkeypatch):
    model, _, _, examples = taught
    assert not list(recall.measure(model, [], 3))
    monkeypatch.setattr(recall, "gives_back", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    assert not list(recall.measure(model, examples, 3))
    assert not list(recall.measure_endings(model, [], 3))
    monkeypatch.setattr(recall, "would_stop", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("full")))
    assert not list(recall.measure_endings(model, examples, 3))
