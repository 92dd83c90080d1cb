"""`compare()`: how much better the tuned model answers than its base, on questions that it has not seen."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

from phinetune.api.ask import open_model
from phinetune.api.report import report_on
from phinetune.api.run import Run
from phinetune.artifacts.comparison import write_comparison
from phinetune.errors import RunError, SettingsError, SheetError
from phinetune.run_folder import RunFolder, damage_in_records, locked, open_finished
from phinetune.settings import DataSettings
from phinetune.sheet.clean import normalize_question
from phinetune.sheet.findings import CODES_OF_SKIPPED, Pair
from phinetune.sheet.kept import kept_pairs
from phinetune.sheet.pairs import PairTable, find_pairs
from phinetune.use.compare import (
    Behaviour,
    Compared,
    Contrast,
    OnProgress,
    as_rows,
    behaviour,
    contrasts,
    judged,
    text_losses,
    tuned_means,
)
from phinetune.use.compare import compare as compare_pairs
from phinetune.use.judge import Endpoint, judge
from phinetune.use.scores import are_sentences

_MOST = 200  # questions asked unless told otherwise
_FORGOTTEN = 0.1  # nats per token of general text: a tenth more surprised than before
_SURE = 0.05
_OWN = 50  # training questions that are asked too, at least: few pairs held out say little of what was learned
_FEWEST = 10  # questions; fewer say nothing about how sure a difference is
# New questions' word overlap as a share of that on questions of the training: from so much on, in words.
_AS_WELL = (
    (0.85, "about as well"),
    (0.71, "about three quarters as well"),
    (0.58, "about two thirds as well"),
    (0.42, "about half as well"),
    (0.29, "about a third as well"),
    (0.0, "far less well"),
)
# Of what is found in a sheet, what tells whether the right questions were asked. The rest is about learning from it.
_TOLD = {"guessed_columns", "similar_columns", "no_header", "several_sheets", "guessed_encoding"}
_TOLD |= set(CODES_OF_SKIPPED.values())
_WORD_FOR_WORD = ("contains", "exact")  # judges


@dataclass(frozen=True)
class Comparison:
    """Base and tuned model on the same questions.

    `scores` has loss (nats per token of the expected answer), exact, f1, rouge_l, chrf and right (by the judge), the
    last five between 0 and 1. `general_text` is nats per token of a text that has nothing to do with the sheet.
    `seen` is the tuned model on `seen_count` questions that it was trained on, to tell learning from memorising.
    `in_training` questions of a sheet were in training. `notes` say what was read from a sheet, and what to mind about
    it. `report` is the page of the run, which has all this in it too; None where the run has no figures for one.
    """

    questions: str
    judge: str
    scores: dict[str, Contrast]
    base: Behaviour
    tuned: Behaviour
    seen: dict[str, float] | None
    general_text: dict[str, float]
    pairs: list[Compared]
    notes: tuple[str, ...] = ()
    report: Path | None = None
    seen_count: int = 0
    in_training: int = 0

    @property
    def perplexity(self) -> dict[str, float]:
        """exp(loss) of both models."""
        loss = self.scores["loss"]
        return {"base": math.exp(loss.base.mean), "tuned": math.exp(loss.tuned.mean)}

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
        return len(self.pairs) < _FEWEST

    def verdict(self) -> list[str]:
        """What the figures mean, in plain words."""
        answers, known = _on_answers(self), _on_known(self)
        first = [*known, *answers] if 2 * self.in_training >= len(self.pairs) else [*answers, *known]
        return [*first, *self.notes, *_on_endings(self.tuned, self.base), *_on_the_rest(self)]

    def to_json(self) -> dict[str, Any]:
        return {
            "questions": self.questions,
            "count": len(self.pairs),
            "judge": self.judge,
            "not_judged": self.not_judged,
            "asks_for_sentences": self.asks_for_sentences,
            "verdict": self.verdict(),
            "scores": {name: asdict(contrast) for name, contrast in self.scores.items()},
            "perplexity": self.perplexity,
            "base": asdict(self.base),
            "tuned": asdict(self.tuned),
            "seen_in_training": self.seen,
            "seen_count": self.seen_count,
            "in_training": self.in_training,
            "general_text": self.general_text,
            "pairs": as_rows(self.pairs),
        }


def compare(
    run: Run | str | Path,
    sheet: str | Path | None = None,
    *,
    question: str | None = None,
    answer: str | None = None,
    sheet_name: str | None = None,
    limit: int = _MOST,
    judge_by: str = "contains",
    endpoint: Endpoint | None = None,
    model: str | None = None,
    device: str = "auto",
    max_new_tokens: int | None = None,
    allow_bin: bool = False,
    on_progress: OnProgress = lambda *_: None,
) -> Comparison:
    """Ask the base and the tuned model the same questions, greedily, and score both.

    The questions are those held out in training, or the pairs of `sheet`; of more than `limit` so many are drawn, the
    same each time. `question` and `answer` name the columns of `sheet` by header, letter or number; left out, they are
    those that the run was told to take, if the sheet has them, and are found otherwise, as is the sheet of a workbook
    without `sheet_name`. comparison.json, .xlsx and .png are written to the run's pictures, and its report is made
    again. `allow_bin` reads an adapter in pickle form.

    Raises RunError when there is no run, it kept no questions, another took its place meanwhile or a model as judge
    gives no verdict, SettingsError for columns without a sheet and a judge that is unknown or cannot be reached as
    told, and what reading the sheet raises.
    """
    folder = open_finished(run.folder.root if isinstance(run, Run) else run)
    made = folder.recipe.stat().st_mtime_ns
    kept = kept_pairs(folder.pairs)
    table = None
    if sheet is None and any(name is not None for name in (question, answer, sheet_name)):
        raise SettingsError("A column or a sheet is named, but no file that has it.", "Add --sheet test.xlsx.")
    if sheet is not None:
        table = _read_sheet(sheet, question, answer, sheet_name, folder)
        pairs: Sequence[Pair] = table.pairs
    elif kept is not None and kept.validation:
        pairs = kept.validation
    else:
        raise RunError(
            f"{folder.root} keeps no questions that were held out in training.",
            "Give some with --sheet test.xlsx, best ones that are not in the training sheet.",
        )
    pairs = _draw(pairs, limit)
    decide = judge(judge_by, endpoint)
    tuned = open_model(run, model=model, device=device, allow_bin=allow_bin)
    if not tuned.has_base:
        raise RunError("A merged model has no base model in it to compare with.", "Give the run it was merged from.")
    longest = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    settings = tuned.defaults.model_copy(update={"temperature": 0.0} | longest)
    compared = compare_pairs(tuned.model, tuned.encoder, pairs, decide, settings, on_progress)
    seen, known = None, []
    if kept is not None and kept.train:
        known = _draw(kept.train, min(limit, max(len(pairs), _OWN)))
        seen = tuned_means(tuned.model, tuned.encoder, known, decide, settings, on_progress)
    paragraphs = files("phinetune.use").joinpath("general_knowledge.txt").read_text(encoding="utf-8").splitlines()
    comparison = Comparison(
        questions=Path(sheet).name if sheet is not None else "held out in training",
        judge=judge_by,
        scores=contrasts(compared),
        base=behaviour([each.base for each in compared]),
        tuned=behaviour([each.tuned for each in compared]),
        seen=seen,
        general_text=text_losses(tuned.model, tuned.encoder, paragraphs),
        pairs=compared,
        notes=tuple(_on_sheet(table)) if table is not None else (),
        seen_count=len(known),
        in_training=_asked_again(pairs, kept.train) if table is not None and kept is not None else 0,
    )
    with locked(folder):
        if not folder.is_finished or folder.recipe.stat().st_mtime_ns != made:
            raise RunError(
                f"The model in {folder.root} was replaced while it was compared, so nothing was written.",
                "Compare again when the training there has ended.",
            )
        write_comparison(folder, comparison.to_json())
        return _with_report(comparison, folder)


def _with_report(comparison: Comparison, folder: RunFolder) -> Comparison:
    if not folder.metrics_json.is_file() or not folder.config_json.is_file():
        return comparison
    try:
        return replace(comparison, report=report_on(folder))
    except RunError as error:  # the comparison is written, and took long
        return replace(comparison, notes=(*comparison.notes, f"The report was not made again: {error.message}"))


def _read_sheet(
    sheet: str | Path, question: str | None, answer: str | None, sheet_name: str | None, folder: RunFolder
) -> PairTable:
    """The pairs of a sheet: from the columns named, else from those the run was told to take, else from those found."""
    if question is None and answer is None and folder.config_json.is_file():
        with damage_in_records(folder):
            told = json.loads(folder.config_json.read_text(encoding="utf-8"))["settings"]["data"]
            data = DataSettings(question=told["question"], answer=told["answer"])
        if data.question is not None or data.answer is not None:
            with suppress(SheetError):  # it has other columns
                return find_pairs(sheet, question=data.question, answer=data.answer, sheet=sheet_name)
    return find_pairs(sheet, question=question, answer=answer, sheet=sheet_name)


def _asked_again(asked: Sequence[Pair], trained_on: Sequence[Pair]) -> int:
    known = {normalize_question(pair.question) for pair in trained_on}
    return sum(normalize_question(pair.question) in known for pair in asked)


def _on_sheet(table: PairTable) -> list[str]:
    """What was read, and what to mind about it."""
    sheet = f', sheet "{table.sheet}"' if isinstance(table.sheet, str) else ""
    said = [
        f'Questions are from the column "{table.question_column}" of {table.file}{sheet}, expected answers from '
        f'"{table.answer_column}".'
    ]
    return said + [warning.message for warning in table.warnings if warning.code in _TOLD]


def _draw(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """So many of the pairs, the same ones each time, in the order of the sheet."""
    if len(pairs) <= limit:
        return list(pairs)
    return [pairs[index] for index in sorted(Random(0).sample(range(len(pairs)), limit))]


def _on_known(comparison: Comparison) -> list[str]:
    again, count = comparison.in_training, len(comparison.pairs)
    return [f"{again} of {count} questions were in training: the result looks better than it is."] if again else []


def _on_answers(comparison: Comparison) -> list[str]:
    f1, right, count = comparison.scores["f1"], comparison.scores["right"], len(comparison.pairs)
    before, after, judged_of_both = right.base.mean, right.tuned.mean, len(judged(comparison.pairs))
    share = f"Of {judged_of_both} answers {before:.0%} were right before, {after:.0%} are now (by {comparison.judge})."
    if comparison.asks_for_sentences:
        share = (
            f"Your answers are whole sentences, and {comparison.judge} asks for them word for word ({before:.0%} right "
            f"before, {after:.0%} now): look at the word overlap, or let a model judge with --judge llm-endpoint."
        )
    gain = f1.difference
    span = f"between {gain.low:+.2f} and {gain.high:+.2f} with 95 % confidence"
    if comparison.are_too_few:
        questions = f"{count} question{'s are' if count != 1 else ' is'}"
        said = (
            f"No sure difference: word overlap changed by {gain.mean:+.2f}. {questions} too few to tell; try more with "
            "--sheet."
        )
    elif gain.low > 0 and f1.p_value < _SURE:
        said = f"The tuned model answers better: word overlap with your answers rose by {gain.mean:.2f}, {span}."
    elif gain.high < 0 and f1.p_value < _SURE:
        said = f"The tuned model answers worse than its base: word overlap fell by {-gain.mean:.2f}, {span}."
    else:
        said = (
            f"No sure difference: word overlap changed by {gain.mean:+.2f}, {span}. "
            f"{count} questions are {'too few' if count < 100 else 'not enough'} to tell; try more with --sheet."
        )
    if comparison.not_judged:
        share += (
            f" {comparison.not_judged} of {2 * count} answers of both models were not judged, as no yes or no came "
            f"back: {count - judged_of_both} questions are left out of these shares."
        )
    return [said, share]


def _on_endings(tuned: Behaviour, base: Behaviour) -> list[str]:
    said = [
        f"It stops by itself in {tuned.stopped_by_itself:.0%} of its answers (the base model in "
        f"{base.stopped_by_itself:.0%}), after {tuned.mean_tokens:.0f} tokens on average."
    ]
    if tuned.cut_at_the_longest > 0.1:
        said.append(
            f"{tuned.cut_at_the_longest:.0%} were cut at the longest allowed length: it has not learned to stop, or "
            "your answers are longer than --max-new-tokens."
        )
    if tuned.in_circles > 0.05:
        said.append(
            f"{tuned.in_circles:.0%} go round in circles: a sign of too high a learning rate or too many epochs."
        )
    if tuned.empty > 0:
        said.append(f"{tuned.empty:.0%} are empty.")
    return said


def _on_own(comparison: Comparison) -> list[str]:
    seen, count = comparison.seen, comparison.seen_count
    if seen is None:
        return []
    said = f"Of {count} of your own training questions it answers {round(seen['exact'] * count)} word for word"
    if "right" in seen and comparison.judge != "exact" and not comparison.asks_for_sentences:
        said += f"; {seen['right']:.0%} are right by {comparison.judge}"
    return [f"{said}."]


def _on_the_rest(comparison: Comparison) -> list[str]:
    said = _on_own(comparison)
    enough = min(comparison.seen_count, len(comparison.pairs)) >= _FEWEST
    if comparison.seen is not None and enough and comparison.questions == "held out in training":
        seen, new = comparison.seen["f1"], comparison.scores["f1"].tuned.mean
        said.append(
            f"On questions it was trained on the overlap is {seen:.2f}, on new ones {new:.2f}: "
            + (
                "it has learned some answers by heart that it cannot carry over to new questions."
                if seen - new > 0.25
                else f"it does {_as_well(new, seen)} on new questions."
            )
        )
    cost = comparison.general_text["tuned"] - comparison.general_text["base"]
    said.append(
        f"On general text it is {'more' if cost > 0 else 'no more'} surprised than before "
        f"({comparison.general_text['base']:.2f} to {comparison.general_text['tuned']:.2f} nats per token): "
        + ("it has forgotten some of what it knew." if cost > _FORGOTTEN else "little or nothing was forgotten.")
    )
    return said


def _as_well(new: float, seen: float) -> str:
    share = new / seen if seen > 0 else 1.0
    return next(words for least, words in _AS_WELL if share >= least)
