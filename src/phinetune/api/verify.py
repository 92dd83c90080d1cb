"""`verify()`: does every form of a tuned model say what the adapter says, as closely as is promised?"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import gguf

from phinetune.api.ask import TunedModel, open_exactly, open_model
from phinetune.api.merge import number_format
from phinetune.api.run import Run
from phinetune.api.serve import serve
from phinetune.artifacts.quantize import kind_of_file
from phinetune.errors import RunError, SettingsError, neighbour
from phinetune.model.device import dtype_name
from phinetune.model.gguf_base import gguf_note
from phinetune.model.load import find
from phinetune.recipe import read_recipe
from phinetune.run_folder import RunFolder, find_model
from phinetune.sheet.findings import Pair
from phinetune.sheet.kept import kept_pairs
from phinetune.sheet.pairs import find_pairs
from phinetune.tokens.encode import Example
from phinetune.use.agreement import QUESTIONS, Answers, judge, mean_loss, probes

_LONGEST = 64  # tokens of an answer that is compared


@dataclass(frozen=True)
class Form:
    """A form of the model beside its adapter. `loss` is nats per answer token, None where only answers are had.

    `same` of `asked` greedy answers are the adapter's, letter by letter. `kept` says whether the form is as close to
    the adapter as its kind promises, None where nothing is promised or too little was asked to tell, and `verdict` why.
    """

    name: str
    by: str
    loss: float | None
    same: int
    asked: int
    kept: bool | None
    verdict: str


def verify(
    run: Run | str | Path,
    files: Sequence[str | Path] = (),
    *,
    sheet: str | Path | None = None,
    question: str | None = None,
    answer: str | None = None,
    sheet_name: str | None = None,
    limit: int = 20,
    model: str | None = None,
    base_file: str | Path | None = None,
    allow_bin: bool = False,
    on_progress: Callable[[str, int, int], None] = lambda *_: None,
) -> list[Form]:
    """Ask the adapter and each of `files`, merged folders and .gguf files, the same questions greedily.

    The questions are the first `limit` of `sheet`, or of those held out in training, whose answers then make the loss;
    `question`, `answer` and `sheet_name` say where in `sheet` they are, and are found when left out;
    where a run kept none, a few general questions are asked, and the loss is that of the adapter's own answers.
    A .gguf file is computed here and, where llama.cpp is installed (phinetune[serve]), by it too; an adapter in .gguf
    form by llama.cpp alone, on the .gguf base model `base_file`, or the one it was trained on if that is such a file.
    `allow_bin` reads an adapter in pickle form. The adapter itself comes first, in fp32 where that fits in memory, so
    that what differs is the form's doing. The promises are those of use/agreement.py.
    """
    for file in map(Path, files):
        _refuse_missing(file)
    if sheet is None and any(name is not None for name in (question, answer, sheet_name)):
        raise SettingsError("A column or a sheet is named, but no file that has it.", "Add --sheet test.xlsx.")
    if sheet is not None:
        pairs: Sequence[Pair] = find_pairs(sheet, question=question, answer=answer, sheet=sheet_name, limit=limit).pairs
    else:
        pairs = _held_out(run, limit)
    tuned = open_exactly(run, model, allow_bin)
    measured_in = next(tuned.model.parameters()).dtype
    if pairs:
        questions, examples = [pair.question for pair in pairs], tuned.encoder.examples(pairs)
    else:
        questions, examples = list(QUESTIONS), probes(tuned.model, tuned.encoder)
    steps = 1 + len(files)
    expected = tuned.answer_all(questions, max_new_tokens=_LONGEST)
    adapter_loss, asked = mean_loss(tuned.model, examples), len(questions)
    forms = [Form("adapter", "phinetune", adapter_loss, asked, asked, None, "what the others are held against")]
    on_progress("verifying", 1, steps)
    for number, file in enumerate(map(Path, files), start=2):
        alone = file.is_file() and gguf_note(file, gguf.Keys.General.TYPE) == "adapter"
        base = Path(base_file or find(model or _base_of(run))) if alone else None
        found: list[tuple[str, float | None, list[str]]] = []
        if not alone:
            found.append(("phinetune", *_here(file, dtype_name(measured_in), questions, examples)))
        if alone or (file.is_file() and find_spec("xllamacpp") is not None):
            found.append(("llama.cpp", None, _by_llama_cpp(file, base, tuned, questions)))
        for by, loss, written in found:
            answers = Answers(_same(written, expected), asked)
            promised = answers if file.is_file() else None
            verdict = judge(_kind(base or file), loss, adapter_loss, measured_in, promised)
            forms.append(Form(file.name, by, loss, answers.same, asked, verdict.kept, verdict.reason))
        on_progress("verifying", number, steps)
    return forms


def _refuse_missing(file: Path) -> None:
    if not file.exists():
        near = neighbour(file)
        raise RunError(
            f"There is no file or folder {file}.",
            f"Did you mean {near}?" if near else "Name what `phinetune merge` or `phinetune gguf` wrote.",
        )


def _held_out(run: Run | str | Path, limit: int) -> Sequence[Pair]:
    """The pairs held out in training; none where the run kept none."""
    model = find_model(run.folder.root if isinstance(run, Run) else run)
    kept = kept_pairs(RunFolder(model.resolve().parent).pairs)
    return kept.validation[:limit] if kept is not None else ()


def _base_of(run: Run | str | Path) -> str:
    return read_recipe(find_model(run.folder.root if isinstance(run, Run) else run)).base_model


def _kind(file: Path) -> str:
    """The packing of a .gguf file, or the number format of a folder. Of an adapter alone its base decides."""
    return kind_of_file(file) if file.is_file() else dtype_name(number_format(find_model(file), "auto"))


def _here(file: Path, dtype: str, questions: list[str], examples: list[Example]) -> tuple[float, list[str]]:
    """Its loss and its answers."""
    opened = open_model(file, device="cpu", dtype=dtype)
    return mean_loss(opened.model, examples), opened.answer_all(questions, max_new_tokens=_LONGEST)


def _by_llama_cpp(file: Path, base: Path | None, tuned: TunedModel, questions: list[str]) -> list[str]:
    """Its answers. `file` is an adapter alone where there is a `base` for it."""
    if base is not None and not base.is_file():
        raise RunError(
            f"{file} is an adapter alone, and its base model is not a .gguf file here.",
            "Say where that is: --base-file base.gguf",
        )
    template = tuned.encoder.template
    answers = []
    with serve(base or file, at_once=1, adapter=file if base else None) as server:
        for question in questions:
            body = {
                "prompt": template.prompt(question),
                "temperature": 0,
                "n_predict": _LONGEST,
                "stop": template.stop_strings(),
            }
            request = urllib.request.Request(
                f"{server.address}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
            )
            with urllib.request.urlopen(request, timeout=600) as answer:
                answers.append(template.clean_answer(json.load(answer)["content"]))
    return answers


def _same(written: Sequence[str], expected: Sequence[str]) -> int:
    return sum(one == other for one, other in zip(written, expected, strict=True))
