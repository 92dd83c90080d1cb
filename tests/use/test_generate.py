from __future__ import annotations

import pytest
import torch
import toys
from hypothesis import given, settings
from hypothesis import strategies as st

import phinetune
from phinetune.errors import SettingsError
from phinetune.settings import GenerateSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.use import generate
from phinetune.use.generate import _Writing, choose

GREEDY = GenerateSettings(temperature=0, max_new_tokens=24)


@pytest.fixture(scope="module")
def tuned(toy_run):
    return phinetune.open_model(toy_run)


def test_the_tuned_toy_has_learned_its_answers_and_to_stop(tuned):
    questions = [f"{question} ({i})" for i, (question, _) in enumerate(toys.PAIRS)]
    answers = tuned.answer_all(questions, max_new_tokens=60)
    right = sum(answer == expected for answer, (_, expected) in zip(answers, toys.PAIRS, strict=True))
    assert right == len(toys.PAIRS)
    assert tuned.answer_all(questions, base=True, max_new_tokens=60) != answers


def test_greedy_answers_equal_those_of_plain_transformers_generate(tuned):
    for question, _ in toys.PAIRS[:3]:
        ids = torch.tensor([tuned.encoder.prompt_ids(question)])
        plain = tuned.model.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24, pad_token_id=0
        )
        text = tuned.encoder.tokenizer.decode(plain[0, ids.shape[1] :], skip_special_tokens=True)
        assert tuned.ask(question, greedy=True, max_new_tokens=24) == tuned.encoder.template.clean_answer(text)


def test_batched_answers_equal_answers_one_by_one(tuned):
    questions = [question * (1 + i % 4) for i, (question, _) in enumerate(toys.PAIRS)]
    one_by_one = [tuned.ask(question, greedy=True, max_new_tokens=24) for question in questions]
    assert tuned.answer_all(questions, max_new_tokens=24) == one_by_one
    assert tuned.answer_all([]) == []


def test_streamed_pieces_add_up_to_the_answer(tuned):
    question = toys.PAIRS[4][0]
    pieces = list(tuned.stream(question, greedy=True))
    assert len(pieces) > 2
    assert "".join(pieces) == tuned.ask(question, greedy=True)


def test_the_base_model_answers_without_what_was_learned(tuned, toy_base):
    question = toys.PAIRS[0][0]
    base = tuned.ask(question, greedy=True, base=True, max_new_tokens=12)
    encoder = Encoder(toys.tokenizer(), PromptTemplate(), 512)
    settings = GREEDY.model_copy(update={"max_new_tokens": 12})
    assert base == "".join(generate.stream(toys.phi(), encoder, question, settings))
    assert tuned.ask(question, greedy=True, max_new_tokens=12) != base


def test_a_seed_repeats_a_sampled_answer(tuned):
    options = {"temperature": 2.0, "max_new_tokens": 12}
    answers = {tuned.ask("Who?", seed=seed, **options) for seed in range(4)}
    assert len(answers) > 1
    assert tuned.ask("Who?", seed=1, **options) == tuned.ask("Who?", seed=1, **options)


@given(st.integers(0, 99), st.floats(0.05, 1), st.floats(0.2, 3))
@settings(deadline=None, max_examples=40)
def test_sampling_stays_inside_the_nucleus(seed, top_p, temperature):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(3, 20, generator=generator)
    picked = choose(logits, GenerateSettings(temperature=temperature, top_p=top_p), generator)
    probabilities = (logits / temperature).softmax(-1)
    for row, token in enumerate(picked.tolist()):
        likelier = probabilities[row][probabilities[row] > probabilities[row, token]]
        assert likelier.sum() < top_p + 1e-6


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([[0.0, 3.0, 1.0]])
    assert choose(logits, GREEDY, torch.Generator()).tolist() == [1]


def test_text_that_may_become_a_stop_string_is_held_back():
    encoder = Encoder(toys.tokenizer(), PromptTemplate(), 512)
    writing = _Writing(encoder)
    for token in encoder.tokenizer(" Yes.\n### Quest").input_ids:
        writing.add(token)
    assert writing.settled_text() == "Yes."
    for token in encoder.tokenizer("ion: and").input_ids:
        writing.add(token)
    assert writing.ended
    assert writing.answer() == "Yes."
    assert writing.end == "next question"


def test_writing_ends_at_what_the_template_has_behind_an_answer():
    encoder = Encoder(toys.tokenizer(), PromptTemplate("{question}\n{answer}\n[end]"), 512)
    writing = _Writing(encoder)
    for token in encoder.tokenizer("Yes.\n[end").input_ids:
        writing.add(token)
    assert (writing.settled_text(), writing.ended) == ("Yes.", False)
    for token in encoder.tokenizer("] and").input_ids:
        writing.add(token)
    assert (writing.settled_text(), writing.answer(), writing.end) == ("Yes.", "Yes.", "end-of-text")


def test_half_a_character_is_not_shown():
    encoder = Encoder(toys.tokenizer(), PromptTemplate(), 512)
    writing = _Writing(encoder)
    first, *rest = encoder.tokenizer("日").input_ids
    writing.add(first)
    assert writing.settled_text() == ""
    for token in rest:
        writing.add(token)
    assert writing.settled_text() == "日"


def test_tokens_beyond_the_tokenizer_are_never_written(toy_base):
    # Phi-2's head is wider than its tokenizer; an untrained row of it must not be sampled.
    model, encoder = toys.phi(), Encoder(toys.tokenizer(), PromptTemplate(), 512)
    with torch.no_grad():
        model.lm_head.bias[encoder.vocabulary :] = 1e4
    assert "".join(generate.stream(model, encoder, "Who?", GREEDY))


def test_bad_options_are_clear_errors(tuned):
    with pytest.raises(SettingsError, match="generate.top_p = 2"):
        tuned.ask("Who?", top_p=2)
    with pytest.raises(SettingsError, match="question is empty"):
        tuned.ask("   ")
