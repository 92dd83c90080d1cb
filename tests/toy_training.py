"""Runs of `fit` on a toy, in which something may go wrong on the way."""

from __future__ import annotations

import torch
import toys

from phinetune.artifacts.metrics import MetricsLog
from phinetune.errors import TrainingError
from phinetune.events import RolledBack, StepDone
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit


def small_corpus(odd: str = "") -> Corpus:
    """20 pairs to learn from, five a step; `odd` ends the answer of row 7 alone."""
    pairs = [toys.Pair(f"{q} ({i})", a + odd * (i == 7), i) for i, (q, a) in enumerate(toys.PAIRS * 4)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)
    return Corpus(examples[:20], examples[20:])


class Run:
    def __init__(
        self,
        folder,
        *,
        corpus=None,
        base=None,
        resume=False,
        stop_after=None,
        stop=lambda run: False,
        before=lambda run, event: None,
        dtype=torch.float32,
        **changes,
    ):
        settings = TrainSettings(**{"epochs": 3, "learning_rate": 5e-3, "batch_size": 5, "grad_accum": 1} | changes)
        base = (toys.phi() if base is None else base).to(dtype)
        self.model = lora.attach(base, LoraSettings(r=4, dropout=0.1), "toy", settings.seed)
        self.checkpoints = Checkpoints(RunFolder(folder), {}, settings.keep_checkpoints)
        self.log = MetricsLog(self.checkpoints.folder)
        start = self.checkpoints.newest_good()[0] if resume else None
        for past in self.checkpoints.history(start) if start is not None else ():
            self.log.consume(past)
        self.events, self.error = [], None
        try:
            for event in fit(
                self.model,
                corpus or small_corpus(),
                settings,
                self.checkpoints,
                resume_from=start,
                stop_requested=lambda: (
                    stop(self) or (stop_after is not None and self.of(StepDone)[-1].step >= stop_after)
                ),
            ):
                self.events.append(event)
                self.log.consume(event)
                before(self, event)
        except TrainingError as error:
            self.error = error

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def weights(self):
        return [parameter.detach().clone() for _, parameter in lora.trainable(self.model)]

    def break_weights(self, value: float = float("nan")) -> None:
        with torch.no_grad():
            lora.trainable(self.model)[1][1].fill_(value)

    def moments(self, step: int) -> bytes:
        return (self.checkpoints.folder.checkpoint(step) / "optimizer.safetensors").read_bytes()


def equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def noise(parameter: torch.Tensor) -> torch.Tensor:
    return 5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))


def unreadable_token() -> tuple[torch.nn.Module, str]:
    """A base model that has no numbers for one letter, as one damaged row of its embedding gives."""
    base, letter = toys.phi(), "Ω"
    ids = toys.tokenizer()(letter).input_ids
    with torch.no_grad():
        base.model.embed_tokens.weight[ids[-1]] = float("nan")
    return base, letter


def breaks_once(step: int):
    """Damage that comes once, as of a bit that flipped: it does not come again when the step is done again."""

    def before(run, event):
        if isinstance(event, StepDone) and event.step == step and not run.of(RolledBack):
            run.break_weights()

    return before
