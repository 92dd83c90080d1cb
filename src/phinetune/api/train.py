"""`train()`: a sheet goes in, a tuned model comes out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from phinetune import api
from phinetune import settings as settings_module
from phinetune.run_folder import RunFolder
from phinetune.settings import Settings
from phinetune.sheet.read import refuse_unreadable
from phinetune.tokens.prompt import PromptTemplate, unescape

if TYPE_CHECKING:
    from phinetune.api.begin import OnEvent
    from phinetune.api.run import Run


@dataclass(frozen=True)
class Wanted:
    """What `train` was asked for, read and found possible so far."""

    sheet: Path
    folder: RunFolder
    mirror: RunFolder | None
    settings: Settings
    template: PromptTemplate
    resume: bool
    overwrite: bool
    on_event: OnEvent
    stop_requested: Callable[[], bool]


def train(
    sheet: str | Path,
    *,
    out: str | Path = ".",
    preset: str | None = None,
    config: str | Path | None = None,
    assignments: Iterable[str] = (),
    resume: bool = False,
    overwrite: bool = False,
    mirror: str | Path | None = None,
    on_event: OnEvent = lambda _: None,
    stop_requested: Callable[[], bool] = lambda: False,
    **options: Any,
) -> Run:
    """Fine-tune a base model on the question/answer pairs of `sheet`; write model, checkpoints and pictures to `out`.

    `options` are the settings by short or dotted name: epochs=3, lr=1e-4, lora_r=32, model="smollm2-135m",
    **{"train.weight_decay": 0.1}; `settings.SHORT_NAMES` lists the short ones. Events go to `on_event` as they come.
    `mirror` is a folder that gets a verified copy of the last checkpoint and of what is finished; `resume` goes on from
    there when `out` has nothing newer.
    Raises PhinetuneError of the kind that tells what is at fault: SheetError, SettingsError, ModelError, RunError,
    TrainingError.
    """
    settings = settings_module.load(preset=preset, config=config, flags=options, assignments=assignments)
    template = PromptTemplate(unescape(settings.data.template))
    refuse_unreadable(sheet)  # before torch is imported, which takes seconds
    return api.tune(
        Wanted(
            Path(sheet),
            RunFolder(Path(out)),
            RunFolder(Path(mirror)) if mirror is not None else None,
            settings,
            template,
            resume,
            overwrite,
            on_event,
            stop_requested,
        )
    )
