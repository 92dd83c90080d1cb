"""`measure_speed()`: a few real steps of a run, on this machine, for `plan`."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from phinetune import settings as settings_module
from phinetune.errors import SettingsError
from phinetune.events import StepDone
from phinetune.model import lora
from phinetune.model.device import keep_freed_memory, pick_device, pick_dtype
from phinetune.model.load import load_base
from phinetune.model.memory import plan_rows
from phinetune.model.row_plan import RowPlan
from phinetune.run_folder import RunFolder
from phinetune.sheet.pairs import find_pairs
from phinetune.sheet.split import split
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate, unescape
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit

_NEVER = 10**9


def measure_speed(
    sheet: str | Path,
    *,
    device: str = "auto",
    steps: int = 4,
    preset: str | None = None,
    config: str | Path | None = None,
    assignments: Iterable[str] = (),
    **options: Any,
) -> float:
    """Real tokens a second of `steps` training steps as `train` takes them; the first one warms up and does not count.

    Loads the model, and downloads what of it is missing. Nothing is kept. Raises SettingsError for a device that is
    named but not here, and whatever `train` would raise.
    """
    settings = settings_module.load(preset=preset, config=config, flags=options, assignments=assignments)
    if device not in ("auto", "cpu", "cuda", "mps"):
        raise SettingsError(
            f"--measure takes steps on this machine, and cannot do so on a {device} that is named.",
            "Leave out --device, or leave out --measure for an estimate.",
        )
    where = pick_device(settings.train.device if device == "auto" else device)
    if where.type == "cpu":
        keep_freed_memory()
    data = settings.data
    table = find_pairs(Path(sheet), question=data.question, answer=data.answer, sheet=data.sheet, limit=data.limit)
    base = load_base(settings.model, pick_dtype(where, settings.train.dtype), where)
    encoder = Encoder(base.tokenizer, PromptTemplate(unescape(data.template)), data.max_length)
    examples = encoder.examples(split(table.pairs, data.validation_share, data.seed).train)
    model = lora.attach(base.model, settings.lora, base.name_for_peft, settings.train.seed)
    train = settings.train
    lengths = [len(example.ids) for example in examples]
    rows = plan_rows(model.get_base_model(), lengths, train.batch_size, train.examples_per_step, where)
    if train.gradient_checkpointing != "auto":
        rows = RowPlan(train.batch_size, recompute=train.gradient_checkpointing)
    if rows.recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    steps_an_epoch = -(-len(examples) // train.examples_per_step)
    few = train.model_copy(
        update={"epochs": steps / steps_an_epoch, "eval_steps": _NEVER, "save_steps": _NEVER, "patience": 0}
    )
    done = []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, keep=1)
        for event in fit(model, Corpus(examples, []), few, checkpoints, pairs_per_row=rows.pairs_per_row):
            if isinstance(event, StepDone):
                done.append(event)
    counted = done[1:] or done
    return sum(step.tokens for step in counted) / sum(step.seconds for step in counted)
