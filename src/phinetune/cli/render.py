"""Events and results -> what a person sees. The only module that prints, save `check_page`.

On a terminal: a start page, a bar with loss, speed and time left, and a closing page. Elsewhere (a file, a
notebook, a pipe): plain lines. Text that comes from a file is shown, never obeyed.
"""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.panel import Panel
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table

from phinetune.cli.diagnosis_page import print_diagnosis
from phinetune.cli.terminal import json_text, open_console, safe, shown
from phinetune.errors import PhinetuneError
from phinetune.events import (
    Endings,
    Event,
    Finished,
    MirrorAwaited,
    Mirrored,
    ModelLoaded,
    ModelLoading,
    Recalled,
    Restored,
    RolledBack,
    Saved,
    SheetRead,
    Started,
    StepDone,
    StepSkipped,
    Validated,
    Warned,
)

_PLAIN_LINES = 20  # progress lines of a run when there is no terminal


def print_json(value: Any) -> None:
    print(json_text(value, indent=2))


def print_json_line(value: Any) -> None:
    print(json_text(value), flush=True)


def print_line(text: str) -> None:
    open_console().print(safe(text))


def print_aside(text: str) -> None:
    open_console().print(f"[dim]{safe(text)}[/dim]")


def on_terminal() -> bool:
    return sys.stdout.isatty()


def say(piece: str) -> None:
    """A piece of an answer, at once."""
    print(shown(piece), end="", flush=True)


def prompt(sign: str) -> str | None:
    """A line from the person, with history and editing on a terminal; None at the end of the input."""
    if sys.stdin.isatty():
        with suppress(ModuleNotFoundError):  # on Windows
            import readline  # noqa: F401 (importing it gives input() a history)
    try:
        return input(sign if sys.stdin.isatty() else "")
    except EOFError:
        if sys.stdin.isatty():
            print()
        return None


def show_error(error: PhinetuneError) -> None:
    console = open_console(errors=True)
    console.print(f"[bold red]Error:[/bold red] {safe(error.message)}")
    if error.hint:
        console.print(safe(error.hint))


def duration(seconds: float) -> str:
    """ "8 s", "3 min 20 s", "2 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, noun: str) -> str:
    """ "1 step", "20 steps"."""
    return f"{number} {noun}{'s' * (number != 1)}"


def show_forms(forms: Sequence[Any]) -> None:
    """What `verify` found: `Form`s, the adapter first."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    for title in ("form", "computed by", "loss", "same answers", "as close as promised"):
        table.add_column(title, overflow="fold")
    for form in forms:
        loss = "" if form.loss is None else f"{form.loss:.3f}"
        kept = {True: "yes: ", False: "[red]no[/red]: ", None: ""}[form.kept]
        table.add_row(safe(form.name), form.by, loss, f"{form.same} of {form.asked}", f"{kept}{form.verdict}")
    open_console().print(table)


def show_broken(forms: Sequence[Any]) -> None:
    """Which of the `Form`s say something else than the adapter, and what to do."""
    names = list(dict.fromkeys(form.name for form in forms if form.kept is False))
    show_error(
        PhinetuneError(
            f"Not as close to the adapter as promised: {', '.join(names)}.",
            "It may be of another run, or of an earlier state of this one: write it again with `phinetune merge` or "
            "`phinetune gguf`, and verify that. If it is no closer, use the adapter: the fault is phinetune's.",
        )
    )


class Bar:
    """A progress bar on a terminal; nothing elsewhere, or when silent."""

    def __init__(self, *, silent: bool = False) -> None:
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            console=open_console(errors=True),
            disable=silent or not sys.stderr.isatty(),
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(safe(what), total=total)
        self._progress.update(self._tasks[what], completed=done)


class TrainingPage:
    """Shows a run as it happens. `silent` shows nothing, for --json."""

    def __init__(self, *, silent: bool = False) -> None:
        self._console = Console(quiet=True) if silent else open_console()
        self._live = self._console.is_terminal and not silent
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._started: Started | None = None
        self._recent: list[StepDone] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        self._console.print(safe(text))

    def tell(self, text: str) -> None:
        """Say it also when silent, beside the output: what a person needs to know on leaving."""
        (open_console(errors=True) if self._console.quiet else self._console).print(safe(text))

    def show(self, event: Event) -> None:
        match event:
            case ModelLoading():
                self.say(f"Loading {event.model} … (a model that is not here yet is downloaded first)")
            case SheetRead():
                self._sheet(event)
            case ModelLoaded():
                self._model(event)
            case Started():
                self._start(event)
            case StepDone():
                self._step(event)
            case StepSkipped():
                self._skipped(event)
            case RolledBack():
                self._recent = []
                if self._bar:
                    self._bar.update(self._task, completed=event.to_step)
            case Validated():
                self._validated(event)
            case Warned():
                self._console.print(f"[yellow]Note:[/yellow] {safe(event.message)}")
            case Restored():
                self.say(f"Fetched checkpoint-{event.step} from {event.path}")
            case MirrorAwaited():
                self.say(f"Copying to {event.path} …")
            case Mirrored(with_model=True):
                self.say(f"A verified copy of everything is in {event.path}")
            case Saved() | Recalled() | Endings() | Finished() | Mirrored():
                pass

    def close(self, run: Any) -> None:
        """The closing page: what was made, how good it is, and what to type next."""
        if self._bar:
            self._bar.stop()
        where = safe(shlex.quote(str(run.folder.root)))
        if run.stopped == "interrupted":
            self._console.print(
                f"\nStopped after step {run.steps}. Nothing is lost: the same command with "
                f"[bold]--resume[/bold] goes on from here."
            )
            return
        table = Table.grid(padding=(0, 2))
        table.add_row("Tuned model", f"{where}/model")
        table.add_row("Pictures, figures", f"{where}/training_visuals")
        if run.eval_loss is not None:
            table.add_row("Held-out loss", _loss_words(run))
        if run.own_asked:
            table.add_row("By heart", _by_heart(run))
        if run.endings_asked:
            table.add_row("Stopping", f"would stop after {run.endings_known} of {run.endings_asked} held-out answers")
        speed = f", {run.real_tokens_per_s:,.0f} tokens/s" if run.real_tokens_per_s else ""
        table.add_row("Training", f"{counted(run.steps, 'step')} in {duration(run.seconds)}{speed}")
        if run.peak_memory_gb:
            table.add_row("Peak memory", f"{run.peak_memory_gb:.1f} GB")
        if run.stopped == "early_stopping":
            table.add_row("Ended early", "held-out loss no longer fell")
        title = "Done" if run.stopped == "finished" else "Done, stopped early"
        self._console.print(Panel(table, title=title, title_align="left", border_style="green", expand=False))
        print_diagnosis(self._console, run.diagnosis)
        command = safe(_own_command())
        self._console.print(f'Ask it:   [bold]{command} ask {where} "your question"[/bold]')
        if run.eval_loss is not None:
            self._console.print(f"Judge it: [bold]{command} compare {where}[/bold]")
        if run.folder.report_html.exists():  # a page that could not be written is a note, and no place to look
            self._console.print(f"See it:   {where}/training_visuals/report.html")
        self._console.print(f"Take it:  [bold]{command} pack {where}[/bold]")

    def _sheet(self, event: SheetRead) -> None:
        table = Table.grid(padding=(0, 2))
        sheet = f" › {safe(event.sheets)}" if event.sheets else ""
        table.add_row("Sheet", f"{safe(event.file)}{sheet}")
        table.add_row(
            "Columns",
            f"question = [bold]{safe(event.question_column)}[/bold], answer = [bold]{safe(event.answer_column)}[/bold]",
        )
        if event.ignored_columns:
            table.add_row("Ignored", safe(", ".join(event.ignored_columns)))
        skipped = f", {counted(event.skipped, 'row')} skipped (see phinetune check)" if event.skipped else ""
        table.add_row(
            "Pairs",
            f"{event.pairs}: {event.train_pairs} to learn from, {event.validation_pairs} held out to measure{skipped}",
        )
        self._console.print(table)

    def _model(self, event: ModelLoaded) -> None:
        table = Table.grid(padding=(0, 2))
        table.add_row("Model", f"{safe(event.model)}, {event.total_parameters:,} parameters in {event.dtype}")
        share = event.trainable_parameters / event.total_parameters
        table.add_row(
            "Adapter",
            f"{event.trainable_parameters:,} trainable parameters ({share:.1%}) on {' '.join(event.target_modules)}",
        )
        table.add_row("Device", safe(event.device))
        self._console.print(table)
        for note in event.notes:
            self._console.print(safe(note))

    def _start(self, event: Started) -> None:
        self._started = event
        epochs = event.total_steps / event.steps_per_epoch
        text = f"Steps    {event.total_steps}: {epochs:g} epoch{'s' * (epochs != 1)} of "
        text += f"{counted(event.steps_per_epoch, 'step')}, {counted(event.examples_per_step, 'pair')} a step"
        if event.step:
            text += f"; going on after step {event.step}"
        self._console.print(text)

    def _step(self, event: StepDone) -> None:
        assert self._started
        self._recent = [*self._recent, event][-10:]
        seconds = sum(step.seconds for step in self._recent)
        speed = sum(step.tokens for step in self._recent) / seconds
        left = (self._started.total_steps - event.step) * seconds / len(self._recent)
        figures = f"loss {event.train_loss:.3f}  lr {event.learning_rate:.1e}  {speed:,.0f} tokens/s"
        if self._live:
            self._bar_now().update(self._task, completed=event.step, figures=figures, left=duration(left))
        elif event.step % max(1, self._started.total_steps // _PLAIN_LINES) == 0:
            self._console.print(f"step {event.step}/{self._started.total_steps}  {figures}  {duration(left)} left")

    def _skipped(self, event: StepSkipped) -> None:
        why = "gave no numbers" if event.reason == "not_finite" else f"had a loss of {event.train_loss:.3f}, far off"
        rows = ", ".join(map(str, event.rows[:16])) + (" …" if len(event.rows) > 16 else "")
        self._console.print(f"[yellow]Note:[/yellow] Step {event.step} {why}, and was left out (rows {rows}).")

    def _validated(self, event: Validated) -> None:
        assert self._started
        if event.step == 0:
            tokens = self._started.train_tokens_per_epoch * self._started.total_steps / self._started.steps_per_epoch
            # A training pass costs about three times a validation pass: forward, and backward through the frozen
            # weights and the adapter.
            estimate = 3 * tokens * event.seconds / event.tokens
            self._console.print(f"Before training: held-out loss {event.eval_loss:.3f}")
            self._console.print(f"Estimated time: about {duration(estimate)}")
            return
        best = "  [green]best so far[/green]" if event.is_best else ""
        self._console.print(f"epoch {event.epoch:.1f}  held-out loss {event.eval_loss:.3f}{best}")

    def _bar_now(self) -> Progress:
        if self._bar is None:
            assert self._started
            self._bar = Progress(
                TextColumn("step {task.completed}/{task.total}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[figures]}  {task.fields[left]} left"),
                console=self._console,
            )
            self._task = self._bar.add_task("", total=self._started.total_steps, figures="", left="")
            self._bar.start()
        return self._bar


def _own_command() -> str:
    """`phinetune`, or where it is when the shell would not find it: in an environment that is not active."""
    if shutil.which("phinetune"):
        return "phinetune"
    beside = Path(sys.executable).with_name("phinetune")
    return str(beside.relative_to(Path.cwd()) if beside.is_relative_to(Path.cwd()) else beside)


def _loss_words(run: Any) -> str:
    kept = f"{'best' if run.kept_step == run.best_step else 'the last'}, step {run.kept_step}, was kept"
    if run.first_eval_loss is None:
        return f"{run.eval_loss:.3f}; the {kept}"
    return f"{run.first_eval_loss:.3f} before, {run.eval_loss:.3f} after, lower is better; {kept}"


def _by_heart(run: Any) -> str:
    last = f"; {run.own_right_last} by the last state" if run.own_right_last != run.own_right_kept else ""
    return f"{run.own_right_kept} of {run.own_asked} of your training questions answered word for word{last}"
