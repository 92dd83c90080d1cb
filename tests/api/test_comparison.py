"""What a comparison says in words: as sure as its figures are, and no surer."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toy_comparison import comparison, general_text, known


def _said(found, part):
    [sentence] = [sentence for sentence in found.verdict() if part in sentence]
    return sentence


def test_a_clear_gain_is_told_with_its_interval():
    said = comparison(40).verdict()[0]
    assert "answers better: word overlap with your answers rose by 0.30" in said
    assert "with 95 % confidence" in said
    assert "fell by 0.20" in comparison(40, better=-0.2).verdict()[0]
    assert "No sure difference" in comparison(40, better=0.0).verdict()[0]


def test_a_handful_of_questions_is_counted_and_no_interval_is_told():
    found = comparison(7)
    assert found.are_too_few
    assert found.to_json()["too_few"]
    assert all(score.too_few for score in found.scores.values())
    assert "7 questions are too few to tell" in found.verdict()[0]
    assert found.verdict()[1] == "Of 7 answers 0 were right before, 3 are now (by contains)."
    assert "stops by itself in 7 of 7 answers (the base model in 7 of 7)" in _said(found, "stops by itself")
    spoken = [sentence for sentence in found.verdict() if "general text" not in sentence and "your own" not in sentence]
    assert not any("%" in sentence for sentence in spoken)


def test_ten_questions_are_enough_and_nine_are_not():
    assert [comparison(count).are_too_few for count in (9, 10)] == [True, False]
    assert "Of 10 answers 0% were right before, 50% are now" in comparison(10).verdict()[1]


def test_few_verdicts_on_many_questions_are_too_few_for_the_right_ones_alone():
    found = comparison(40, judged=4)
    assert not found.are_too_few
    assert [name for name, score in found.scores.items() if score.too_few] == ["right"]
    assert found.verdict()[1].startswith("Of 4 answers 0 were right before, 2 are now")


def test_one_right_answer_is_told_as_one():
    assert comparison(3).verdict()[1].startswith("Of 3 answers 0 were right before, 1 is now (by contains).")


def test_why_answers_were_not_judged_is_said_as_it_is():
    asked = comparison(40, judged=30)
    model = replace(asked, judge="llm-endpoint").verdict()[1]
    assert "20 of 80 answers of both models were not judged, as no yes or no came back" in model
    assert "10 questions are left out" in model
    numbers = replace(asked, judge="numeric").verdict()[1]
    assert "10 of 40 questions could not be judged, as no number stands in the answer that you expect" in numbers
    assert "yes or no" not in numbers
    assert "not" not in replace(comparison(40), judge="numeric").verdict()[1]


@pytest.mark.parametrize("questions", ["held out in training", "test.xlsx"])
@pytest.mark.parametrize(
    ("seen", "new", "said"),
    [
        (0.33, 0.17, "about half as well"),
        (0.33, 0.31, "about as well"),
        (0.2, 0.02, "far less well"),
        (0.0, 0.0, "about as well"),
        (0.9, 0.5, "by heart"),
    ],
)
def test_new_questions_are_set_beside_those_of_the_training_by_their_share(questions, seen, new, said):
    unseen = known(count=12, f1=new, loss=1.9)
    found = comparison(12, questions=questions, seen=known(count=10, f1=seen, loss=0.31), unseen=unseen)
    sentence = _said(found, "trained on the overlap")
    assert said in sentence
    assert f"On 10 questions it was trained on the overlap is {seen:.2f} and the loss 0.31, on 12 new ones" in sentence
    assert f"{new:.2f} and 1.90" in sentence


@pytest.mark.parametrize(
    "few", [{"seen": known(count=9)}, {"unseen": known(count=9)}, {"seen": None}, {"unseen": None}]
)
def test_memorising_is_not_told_from_a_handful_of_questions(few):
    assert not any("trained on the overlap" in sentence for sentence in comparison(12, **few).verdict())


def test_what_it_knows_of_its_own_training_questions_is_counted():
    found, said = comparison(40), "Of 50 of your own training questions it answers 15 word for word"
    assert f"{said}; 52% are right by contains." in found.verdict()
    assert f"{said}." in replace(found, judge="exact").verdict()
    assert f"{said}." in replace(found, seen=known(right=None, judged=0)).verdict()
    some = replace(found, judge="numeric", seen=known(judged=20))
    assert f"{said}; of the 20 that were judged 52% are right by numeric." in some.verdict()
    few = replace(found, judge="numeric", seen=known(judged=4, right=0.5))
    assert f"{said}; of the 4 that were judged 2 of 4 are right by numeric." in few.verdict()
    assert not any("your own" in sentence for sentence in replace(found, seen=None).verdict())


def test_sentences_are_not_counted_as_wrong_answers():
    found = comparison(40)
    assert found.verdict()[1].startswith("Of 40 answers")
    assert not found.to_json()["asks_for_sentences"]
    sentence = "The ferry leaves at 6:45 from the old pier."
    told = replace(found, pairs=[replace(pair, expected=sentence) for pair in found.pairs])
    for name in ("contains", "exact"):
        share = replace(told, judge=name).verdict()[1]
        assert f"whole sentences, and {name} asks for them word for word (0% right before, 50% now)" in share
        assert "word overlap" in share
        assert "--judge llm-endpoint" in share
    assert told.to_json()["asks_for_sentences"]
    assert replace(told, judge="numeric").verdict()[1].startswith("Of 40 answers")


@pytest.mark.parametrize(
    ("cost", "spread", "surprised", "said"),
    [
        (1.5, 0.1, "more surprised than", "it has forgotten some of what it knew"),
        (0.06, 0.02, "more surprised than", "little or nothing was forgotten"),
        (0.0, 0.05, "about as surprised as", "little or nothing was forgotten"),
        (-0.3, 0.1, "less surprised than", "little or nothing was forgotten"),
        (0.2, 1.0, "perhaps more surprised than", "too short to tell"),
        (0.02, 1.0, "about as surprised as", "too short to tell"),
    ],
)
def test_forgetting_is_told_as_surely_as_fourteen_paragraphs_allow(cost, spread, surprised, said):
    text = general_text(cost, spread)
    sentence = _said(comparison(40, general_text=text), "general text")
    assert f"it is {surprised} before" in sentence
    assert said in sentence
    assert f"{cost:+.2f}, between {text.difference.low:+.2f} and {text.difference.high:+.2f} with 95 %" in sentence
