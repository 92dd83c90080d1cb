"""What came out of a comparison, and what it means in plain words."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phinetune.artifacts.score_table import ScoreTable, perplexity, score_table
from phinetune.use.compare import Behaviour, Compared, Means, as_rows
from phinetune.use.scores import are_sentences
from phinetune.use.significance import Contrast, are_too_few

_FORGOTTEN = 0.1  # nats per token of general text: a tenth more surprised than before
_SURE = 0.05
# New questions' word overlap as a share of that on questions of the training: from so much on, in words.
_AS_WELL = (
    (0.85, "about as well"),
    (0.71, "about three quarters as well"),
    (0.58, "about two thirds as well"),
    (0.42, "about half as well"),
    (0.29, "about a third as well"),
    (0.0, "far less well"),
)
_WORD_FOR_WORD = ("contains", "exact")  # judges


@dataclass(frozen=True)
class Comparison:
    """Base and tuned model on the same questions.

    `scores` has loss (nats per token of the expected answer), exact, f1, rouge_l, chrf and right (by the judge), the
    last five between 0 and 1. `general_text` is nats per token of a text that has nothing to do with the sheet, by its
    paragraphs. `seen` is the tuned model on questions that it was trained on, `unseen` on those of the questions here
    that were not in training, to tell learning from memorising; `in_training` questions were. `notes` say what was read
    from a sheet, and what to mind about it. `report` is the page of the run, which has all this in it too; None where
    the run has no figures for one.
    """

    questions: str
    judge: str
    scores: dict[str, Contrast]
    base: Behaviour
    tuned: Behaviour
    seen: Means | None
    unseen: Means | None
    general_text: Contrast
    pairs: list[Compared]
    notes: tuple[str, ...] = ()
    report: Path | None = None
    in_training: int = 0

    @property
    def perplexity(self) -> dict[str, float]:
        """exp(loss) of both models."""
        loss = asdict(self.scores["loss"])
        return {side: perplexity(loss, side) for side in ("base", "tuned")}

    @property
    def not_judged(self) -> int:
        """Answers of both models that the judge gave no verdict on."""
        return sum(side.right is None for pair in self.pairs for side in (pair.base, pair.tuned))

    @property
    def asks_for_sentences(self) -> bool:
        """Whether an answer is only right when it has a whole sentence word for word: `right` then says little."""
        return self.judge in _WORD_FOR_WORD and are_sentences([pair.expected for pair in self.pairs])

    @property
    def are_too_few(self) -> bool:
        """Whether the questions are too few to say how sure a difference is."""
        return are_too_few(len(self.pairs))

    def score_table(self) -> ScoreTable:
        """The scores as lines to read."""
        return score_table({name: asdict(score) for name, score in self.scores.items()}, self.judge)

    def verdict(self) -> list[str]:
        """What the figures mean, in plain words."""
        answers, known = _on_answers(self), _on_known(self)
        first = [*known, *answers] if 2 * self.in_training >= len(self.pairs) else [*answers, *known]
        rest = [*_on_own(self), *_on_memorising(self), _on_general_text(self.general_text)]
        return [*first, *self.notes, *_on_endings(self), *rest]

    def to_json(self) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "count": len(self.pairs),
            "too_few": self.are_too_few,
            "judge": self.judge,
            "not_judged": self.not_judged,
            "asks_for_sentences": self.asks_for_sentences,
            "verdict": self.verdict(),
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "perplexity": self.perplexity,
            "base": asdict(self.base),
            "tuned": asdict(self.tuned),
            "seen_in_training": None if self.seen is None else asdict(self.seen),
            "not_in_training": None if self.unseen is None else asdict(self.unseen),
            "in_training": self.in_training,
            "general_text": asdict(self.general_text),
            "pairs": as_rows(self.pairs),
        }


def _on_known(comparison: Comparison) -> list[str]:
    again, count = comparison.in_training, len(comparison.pairs)
    return [f"{again} of {count} questions were in training: the result looks better than it is."] if again else []


def _on_answers(comparison: Comparison) -> list[str]:
    return [_on_overlap(comparison.scores["f1"]), _on_right(comparison) + _on_not_judged(comparison)]


def _on_overlap(f1: Contrast) -> str:
    gain, count = f1.difference, f1.count
    if f1.too_few:
        questions = f"{count} question{'s are' if count != 1 else ' is'}"
        return (
            f"No sure difference: word overlap changed by {gain.mean:+.2f}. {questions} too few to tell; try more with "
            "--sheet."
        )
    span = _span(f1)
    if gain.low > 0 and f1.p_value < _SURE:
        return f"The tuned model answers better: word overlap with your answers rose by {gain.mean:.2f}, {span}."
    if gain.high < 0 and f1.p_value < _SURE:
        return f"The tuned model answers worse than its base: word overlap fell by {-gain.mean:.2f}, {span}."
    return (
        f"No sure difference: word overlap changed by {gain.mean:+.2f}, {span}. "
        f"{count} questions are {'too few' if count < 100 else 'not enough'} to tell; try more with --sheet."
    )


def _on_right(comparison: Comparison) -> str:
    right, by = comparison.scores["right"], comparison.judge
    before, after = (_part(side.mean, right.count) for side in (right.base, right.tuned))
    if comparison.asks_for_sentences:
        return (
            f"Your answers are whole sentences, and {by} asks for them word for word ({before} right before, {after} "
            "now): look at the word overlap, or let a model judge with --judge llm-endpoint."
        )
    if right.too_few:
        was, now = (round(side.mean * right.count) for side in (right.base, right.tuned))
        before, after = f"{was} {'was' if was == 1 else 'were'}", f"{now} {'is' if now == 1 else 'are'}"
    else:
        before, after = f"{before} were", f"{after} are"
    return f"Of {right.count} answers {before} right before, {after} now (by {by})."


def _on_not_judged(comparison: Comparison) -> str:
    count = len(comparison.pairs)
    left_out = count - comparison.scores["right"].count
    if not left_out:
        return ""
    if comparison.judge == "numeric":
        return (
            f" {left_out} of {count} questions could not be judged, as no number stands in the answer that you expect: "
            "these figures leave them out."
        )
    return (
        f" {comparison.not_judged} of {2 * count} answers of both models were not judged, as no yes or no came "
        f"back: {left_out} questions are left out of these figures."
    )


def _on_endings(comparison: Comparison) -> list[str]:
    tuned, base, count = comparison.tuned, comparison.base, len(comparison.pairs)
    answers = "answers" if comparison.are_too_few else "of its answers"
    said = [
        f"It stops by itself in {_part(tuned.stopped_by_itself, count)} {answers} (the base model in "
        f"{_part(base.stopped_by_itself, count)}), after {tuned.mean_tokens:.0f} tokens on average."
    ]
    if tuned.cut_at_the_longest > 0.1:
        said.append(
            f"{_part(tuned.cut_at_the_longest, count)} were cut at the longest allowed length: it has not learned to "
            "stop, or your answers are longer than --max-new-tokens."
        )
    if tuned.in_circles > 0.05:
        said.append(
            f"{_part(tuned.in_circles, count)} go round in circles: a sign of too high a learning rate or too many "
            "epochs."
        )
    if tuned.empty > 0:
        said.append(f"{_part(tuned.empty, count)} are empty.")
    return said


def _on_own(comparison: Comparison) -> list[str]:
    seen, by = comparison.seen, comparison.judge
    if seen is None:
        return []
    said = f"Of {seen.count} of your own training questions it answers {round(seen.exact * seen.count)} word for word"
    if seen.right is not None and by != "exact" and not comparison.asks_for_sentences:
        of = "" if seen.judged == seen.count else f"of the {seen.judged} that were judged "
        said += f"; {of}{_part(seen.right, seen.judged)} are right by {by}"
    return [f"{said}."]


def _on_memorising(comparison: Comparison) -> list[str]:
    seen, new = comparison.seen, comparison.unseen
    if seen is None or new is None or are_too_few(min(seen.count, new.count)):
        return []
    by_heart = seen.f1 - new.f1 > 0.25
    return [
        f"On {seen.count} questions it was trained on the overlap is {seen.f1:.2f} and the loss {seen.loss:.2f}, on "
        f"{new.count} new ones {new.f1:.2f} and {new.loss:.2f}: "
        + (
            "it has learned some answers by heart that it cannot carry over to new questions."
            if by_heart
            else f"it does {_as_well(new.f1, seen.f1)} on new questions."
        )
    ]


def _on_general_text(text: Contrast) -> str:
    cost = text.difference
    is_sure = (cost.low > 0 or cost.high < 0) and text.p_value < _SURE
    if not is_sure:
        found = "about as" if abs(cost.mean) <= _FORGOTTEN else "perhaps more" if cost.mean > 0 else "perhaps less"
    else:
        found = "more" if cost.mean > 0 else "less"
    if is_sure and cost.mean > _FORGOTTEN:
        said = "it has forgotten some of what it knew."
    elif cost.high <= _FORGOTTEN or is_sure:
        said = "little or nothing was forgotten."
    else:
        said = "this text is too short to tell whether something was forgotten."
    than = "as before" if found == "about as" else "than before"
    return (
        f"On general text it is {found} surprised {than} ({text.base.mean:.2f} to {text.tuned.mean:.2f} nats per "
        f"token, {cost.mean:+z.2f}, {_span(text)}): {said}"
    )


def _span(score: Contrast) -> str:
    return f"between {score.difference.low:+z.2f} and {score.difference.high:+z.2f} with 95 % confidence"


def _part(share: float, count: int) -> str:
    """A share of so many answers: of few, as a count."""
    return f"{round(share * count)} of {count}" if are_too_few(count) else f"{share:.0%}"


def _as_well(new: float, seen: float) -> str:
    share = new / seen if seen > 0 else 1.0
    return next(words for least, words in _AS_WELL if share >= least)
