from __future__ import annotations

import pytest
import toys
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from phinetune.errors import SheetError
from phinetune.tokens.encode import IGNORED, Encoder
from phinetune.tokens.prompt import PromptTemplate

TOKENIZER = toys.tokenizer()


def _encoder(max_length: int = 512, tokenizer=TOKENIZER) -> Encoder:
    return Encoder(tokenizer, PromptTemplate(), max_length)


@given(st.text(min_size=1, max_size=40), st.text(min_size=1, max_size=40))
@settings(deadline=None)
def test_labels_are_the_answer_and_end_of_text_by_position(question, answer):
    encoder = _encoder()
    example = encoder.examples([toys.Pair(question, answer)])[0]
    assert list(example.ids[: example.prompt_length]) == encoder.prompt_ids(question)
    assert set(example.labels[: example.prompt_length]) == {IGNORED}
    assert example.labels[example.prompt_length :] == example.ids[example.prompt_length :]
    assert example.ids[-1] == encoder.eos_id
    assert example.answer_tokens == len(example.ids) - example.prompt_length >= 2


def test_text_survives_the_round_trip():
    encoder = _encoder()
    example = encoder.examples([toys.Pair("Who?", "Ünal, 'the 2nd' \u2014 日本.\n\tdone")])[0]
    text = TOKENIZER.decode(example.ids[:-1])
    assert text == "### Question: Who?\n\n### Answer: Ünal, 'the 2nd' \u2014 日本.\n\tdone"


def test_a_cell_that_spells_the_end_of_text_token_does_not_end_the_text():
    encoder = _encoder()
    example = encoder.examples([toys.Pair("a <|endoftext|> b", "c <|endoftext|> d")])[0]
    assert example.ids.count(encoder.eos_id) == 1
    assert encoder.eos_id not in encoder.prompt_ids("<|endoftext|>")


def test_a_long_answer_is_cut_at_its_end_and_says_so():
    encoder = _encoder(max_length=40)
    whole = _encoder().examples([toys.Pair("Who?", "word " * 50)])[0]
    example = encoder.examples([toys.Pair("Who?", "word " * 50)])[0]
    assert example.was_cut
    assert example.ids == whole.ids[:40]
    assert encoder.eos_id not in example.ids  # it must not learn to stop in the middle


def test_a_pair_that_just_fits_is_not_cut():
    whole = _encoder().examples([toys.Pair("Who?", "Me.")])[0]
    assert not _encoder(len(whole.ids)).examples([toys.Pair("Who?", "Me.")])[0].was_cut
    assert _encoder(len(whole.ids) - 1).examples([toys.Pair("Who?", "Me.")])[0].was_cut


def test_questions_that_leave_no_room_are_refused_by_row():
    pairs = [toys.Pair("short", "a", 2), toys.Pair("long " * 60, "a", 7), toys.Pair("long " * 60, "b", 9)]
    with pytest.raises(SheetError, match=r"row 7, 9") as caught:
        _encoder(max_length=40).examples(pairs)
    assert "--max-length" in caught.value.hint


def test_a_tokenizer_that_begins_texts_with_a_token_begins_them_once():
    tokenizer = toys.tokenizer()
    from tokenizers.processors import TemplateProcessing

    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.bos_token_id)]
    )
    encoder = _encoder(tokenizer=tokenizer)
    assert encoder.prompt_ids("x").count(tokenizer.bos_token_id) == 1
    assert encoder.prompt_ids("x")[0] == tokenizer.bos_token_id
    assert encoder.examples([toys.Pair("x", "y")])[0].ids.count(tokenizer.bos_token_id) == 2  # and the end of text


@pytest.mark.skipif(not toys.PHI2.is_dir(), reason="the real Phi-2 tokenizer is not here")
def test_phi2_learns_exactly_the_tokens_that_asking_feeds_it():
    tokenizer = AutoTokenizer.from_pretrained(toys.PHI2)
    encoder = _encoder(tokenizer=tokenizer)
    example = encoder.examples([toys.Pair("What is  code?", "def f():\n        return 1  # two")])[0]
    text = "### Question: What is  code?\n\n### Answer: def f():\n        return 1  # two"
    # Joining at a blank gives the very tokens of the text encoded as one, runs of blanks included.
    assert list(example.ids[:-1]) == tokenizer(text).input_ids
    assert example.ids[-1] == tokenizer.eos_token_id == 50256
    assert tokenizer.pad_token_id is None


def test_earlier_pairs_stand_before_the_prompt_as_in_training_and_the_oldest_go_first():
    pairs = [toys.Pair("Who?", "Maren."), toys.Pair("When?", "At six.")]
    history = [(pair.question, pair.answer) for pair in pairs]
    first, second = (example.ids for example in _encoder().examples(pairs))
    alone = _encoder().prompt_ids("Where?")
    assert _encoder().prompt_ids("Where?", history) == [*first, *second, *alone]
    short = _encoder(len(alone) + len(second) + 3)
    assert short.prompt_ids("Where?", history) == [*second, *alone]
