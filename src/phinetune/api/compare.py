"""`compare()`: how much better the tuned model answers than its base, on questions that it has not seen."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from random import Random

from phinetune.api.ask import open_model
from phinetune.api.comparison import Comparison
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
from phinetune.sheet.split import Split
from phinetune.use.agreement import general_knowledge
from phinetune.use.compare import Compared, Means, OnProgress, behaviour, contrasts, means, text_losses, tuned_means
from phinetune.use.compare import compare as compare_pairs
from phinetune.use.judge import Endpoint, judge
from phinetune.use.scores import has_number

_MOST = 200  # questions asked unless told otherwise
_OWN = 50  # training questions that are asked too, at least: few pairs held out say little of what was learned
# Of what is found in a sheet, what tells whether the right questions were asked. The rest is about learning from it.
_TOLD = {"guessed_columns", "similar_columns", "no_header", "several_sheets", "guessed_encoding"}
_TOLD |= set(CODES_OF_SKIPPED.values())


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
    gives no verdict, SettingsError for columns without a sheet and a judge that is unknown, cannot be reached as told
    or has no number to look for, and what reading the sheet raises.
    """
    folder = open_finished(run.folder.root if isinstance(run, Run) else run)
    made = folder.recipe.stat().st_mtime_ns
    kept = kept_pairs(folder.pairs)
    pairs, table = _questions(folder, kept, sheet, question, answer, sheet_name)
    pairs = _draw(pairs, limit)
    if judge_by == "numeric" and not any(has_number(pair.answer) for pair in pairs):
        raise SettingsError(
            "No expected answer holds a number, so that --judge numeric could judge none.",
            "Choose another judge: contains, exact or llm-endpoint.",
        )
    decide = judge(judge_by, endpoint)
    tuned = open_model(run, model=model, device=device, allow_bin=allow_bin)
    if not tuned.has_base:
        raise RunError("A merged model has no base model in it to compare with.", "Give the run it was merged from.")
    longest = {} if max_new_tokens is None else {"max_new_tokens": max_new_tokens}
    settings = tuned.defaults.model_copy(update={"temperature": 0.0} | longest)
    compared = compare_pairs(tuned.model, tuned.encoder, pairs, decide, settings, on_progress)
    trained_on = kept.train if kept is not None else []
    seen, new = None, compared
    if trained_on:
        known = {normalize_question(pair.question) for pair in trained_on}
        new = [each for each in compared if normalize_question(each.question) not in known]
        own = _draw(trained_on, min(limit, max(len(pairs), _OWN)))
        seen = tuned_means(tuned.model, tuned.encoder, own, decide, settings, on_progress)
    comparison = Comparison(
        questions=Path(sheet).name if sheet is not None else "held out in training",
        judge=judge_by,
        scores=contrasts(compared),
        base=behaviour([each.base for each in compared]),
        tuned=behaviour([each.tuned for each in compared]),
        seen=seen,
        unseen=_tuned_on(new),
        general_text=text_losses(tuned.model, tuned.encoder, general_knowledge()),
        pairs=compared,
        notes=tuple(_on_sheet(table)) if table is not None else (),
        in_training=len(compared) - len(new) if table is not None else 0,
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


def _questions(
    folder: RunFolder,
    kept: Split | None,
    sheet: str | Path | None,
    question: str | None,
    answer: str | None,
    sheet_name: str | None,
) -> tuple[Sequence[Pair], PairTable | None]:
    """The pairs to ask, and the sheet that they are from, if any."""
    if sheet is not None:
        table = _read_sheet(sheet, question, answer, sheet_name, folder)
        return table.pairs, table
    if any(name is not None for name in (question, answer, sheet_name)):
        raise SettingsError("A column or a sheet is named, but no file that has it.", "Add --sheet test.xlsx.")
    if kept is None or not kept.validation:
        raise RunError(
            f"{folder.root} keeps no questions that were held out in training.",
            "Give some with --sheet test.xlsx, best ones that are not in the training sheet.",
        )
    return kept.validation, None


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


def _tuned_on(compared: Sequence[Compared]) -> Means | None:
    return means([each.tuned for each in compared], [each.answer_tokens for each in compared]) if compared else None


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
