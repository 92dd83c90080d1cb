"""`verify()`: does every form of a tuned model say what the adapter says, as closely as is promised?"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from phinetune.api.ask import TunedModel, open_exactly, open_model
from phinetune.api.forms import NamedForm, look_at
from phinetune.api.run import Run
from phinetune.api.serve import serve
from phinetune.errors import SettingsError
from phinetune.model.device import dtype_name
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
    `allow_bin` reads an adapter in pickle form. Every file is looked at before the first answer. The adapter comes
    first, in fp32 where that fits in memory, so that what differs is the form's doing. The promises are those of
    use/agreement.py.
    """
    base_model = model or _base_of(run)
    named = [look_at(Path(file), base_model, Path(base_file) if base_file is not None else None) for file in files]
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
    steps = 1 + len(named)
    expected = tuned.answer_all(questions, max_new_tokens=_LONGEST)
    adapter_loss, asked = mean_loss(tuned.model, examples), len(questions)
    tokens = sum(example.answer_tokens for example in examples)
    forms = [Form("adapter", "phinetune", adapter_loss, asked, asked, None, "what the others are held against")]
    on_progress("verifying", 1, steps)
    for number, form in enumerate(named, start=2):
        found: list[tuple[str, float | None, list[str]]] = []
        if form.base is None:
            found.append(("phinetune", *_here(form.path, dtype_name(measured_in), questions, examples)))
        if form.path.is_file() and find_spec("xllamacpp") is not None:
            found.append(("llama.cpp", None, _by_llama_cpp(form, tuned, questions)))
        for by, loss, written in found:
            answers = Answers(_same(written, expected), asked)
            promised = answers if form.path.is_file() else None
            verdict = judge(form.kind, loss, adapter_loss, measured_in, tokens, promised)
            forms.append(Form(form.path.name, by, loss, answers.same, asked, verdict.kept, verdict.reason))
        on_progress("verifying", number, steps)
    return forms


def _held_out(run: Run | str | Path, limit: int) -> Sequence[Pair]:
    """The pairs held out in training; none where the run kept none."""
    model = find_model(run.folder.root if isinstance(run, Run) else run)
    kept = kept_pairs(RunFolder(model.resolve().parent).pairs)
    return kept.validation[:limit] if kept is not None else ()


def _base_of(run: Run | str | Path) -> str:
    return read_recipe(find_model(run.folder.root if isinstance(run, Run) else run)).base_model


def _here(file: Path, dtype: str, questions: list[str], examples: list[Example]) -> tuple[float, list[str]]:
    """Its loss and its answers."""
    opened = open_model(file, device="cpu", dtype=dtype)
    return mean_loss(opened.model, examples), opened.answer_all(questions, max_new_tokens=_LONGEST)


def _by_llama_cpp(form: NamedForm, tuned: TunedModel, questions: list[str]) -> list[str]:
    """Its answers."""
    template = tuned.encoder.template
    answers = []
    with serve(form.base or form.path, at_once=1, adapter=form.path if form.base else None) as server:
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
