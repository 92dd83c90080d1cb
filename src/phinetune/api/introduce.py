"""What a run says before its first step: the pairs found, the model loaded, and what to be warned of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedConfig

from phinetune.api.begin import OnEvent
from phinetune.events import ModelLoaded, SheetRead, Warned
from phinetune.model import lora
from phinetune.model.device import cpu_has_bf16, describe, dtype_name
from phinetune.settings import DEFAULT_MODEL, MODEL_RECIPES, Settings
from phinetune.sheet.findings import Pair
from phinetune.sheet.pairs import PairTable, find_pairs
from phinetune.sheet.repeats import answers_repeat
from phinetune.sheet.split import Split, split
from phinetune.training.learning_rate import suited_rate
from phinetune.training.loop import Corpus


def read_sheet(path: Path, settings: Settings, on_event: OnEvent) -> tuple[PairTable, Split]:
    """The pairs of the sheet and their two parts; says what was found. Raises SheetError."""
    data = settings.data
    table = find_pairs(path, question=data.question, answer=data.answer, sheet=data.sheet, limit=data.limit)
    parts = split(table.pairs, data.validation_share, data.seed)
    sheets = [table.sheet] if isinstance(table.sheet, str) else list(table.sheet or ())
    on_event(
        SheetRead(
            file=str(path),
            sheets=", ".join(sheets),
            question_column=table.question_column,
            answer_column=table.answer_column,
            ignored_columns=tuple(table.ignored_columns),
            pairs=len(table.pairs),
            skipped=len(table.skipped),
            train_pairs=len(parts.train),
            validation_pairs=len(parts.validation),
        )
    )
    for warning in table.warnings:
        on_event(Warned(warning.code, warning.message))
    return table, parts


def introduce(
    model: PeftModel,
    settings: Settings,
    why_this_rate: str | None,
    recomputes: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> ModelLoaded:
    """The model with its fresh adapter, and what was chosen for the person; `settings` are those asked for."""
    trainable, total = lora.count_parameters(model)
    notes = []
    if parts := _recipe_parts(settings):
        notes.append(f"{settings.model} is small and learns by a recipe of its own: {', '.join(parts)}.")
    if why_this_rate:
        notes.append(why_this_rate)
    if recomputes:
        notes.append("Intermediate results are computed twice instead of kept: slower, but it needs less memory.")
    return ModelLoaded(
        model=settings.model,
        device=describe(device),
        dtype=dtype_name(dtype),
        target_modules=tuple(sorted(model.peft_config["default"].target_modules)),
        trainable_parameters=trainable,
        total_parameters=total,
        notes=tuple(notes),
    )


def settle_rate(settings: Settings, config: PreTrainedConfig, pairs: Sequence[Pair]) -> tuple[Settings, str | None]:
    """The settings with a number for --lr auto, and why it is that one; other settings as they are."""
    if settings.train.learning_rate != "auto":
        return settings, None
    repeat = answers_repeat(pairs)
    rate = suited_rate(config.get_text_config().hidden_size, answers_repeat=repeat)
    why = (
        f"Learning rate {rate}: it suits a model of this size, and a sheet in which most answers belong to "
        f"{'several questions' if repeat else 'one question'}."
    )
    return settings.model_copy(update={"train": settings.train.model_copy(update={"learning_rate": rate})}), why


def _recipe_parts(settings: Settings) -> list[str]:
    """What this run has of the recipe for its model, in words."""
    train, recipe = settings.train, MODEL_RECIPES.get(settings.model, {}).get("train", {})
    words = {
        ("epochs",): f"{train.epochs:g} epochs",
        ("learning_rate",): f"learning rate {train.learning_rate}",
        ("batch_size", "grad_accum"): f"{train.examples_per_step} pairs a step",
    }
    return [
        said
        for names, said in words.items()
        if all(name in recipe and getattr(train, name) == recipe[name] for name in names)
    ]


def warnings_before(corpus: Corpus, settings: Settings, device: torch.device, dtype: torch.dtype) -> Iterator[Warned]:
    """What the person should know before the run takes its time."""
    if cut := [example.row for example in (*corpus.train, *corpus.validation) if example.was_cut]:
        rows = ", ".join(map(str, sorted(cut)[:10])) + (" …" if len(cut) > 10 else "")
        yield Warned(
            "answers_cut",
            f"{'1 answer is' if len(cut) == 1 else f'{len(cut)} answers are'} longer than the "
            f"{settings.data.max_length} tokens that fit, and cut at the end (row{'s' * (len(cut) > 1)} {rows}). "
            "The model will not learn how they finish; allow more with --max-length.",
        )
    if not corpus.validation:
        yield Warned(
            "no_validation",
            "All questions are the same one, so nothing could be held out: there will be no held-out loss, "
            "and the last state is kept instead of the best.",
        )
    if device.type == "cpu" and dtype == torch.bfloat16 and not cpu_has_bf16():
        yield Warned(
            "slow_bf16", "This CPU has no bf16 arithmetic and imitates it, many times slower. Leave out --dtype."
        )
    if device.type == "cpu" and settings.model == DEFAULT_MODEL:
        duration = "about an hour" if dtype == torch.bfloat16 else "many hours"
        yield Warned(
            "no_gpu",
            "There is no GPU here. Phi-2 trains on the CPU too, but a few hundred short pairs take "
            f"{duration} on two cores. On a GPU it is minutes.",
        )
