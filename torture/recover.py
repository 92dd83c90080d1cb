"""Let memory run out and numbers go wrong in the middle of training, and see that the run goes on.

    python torture/recover.py            some minutes on one core
    python torture/recover.py --short    a few of each kind

Memory runs out for real: the process may take so many MB of addresses more than when training starts (RLIMIT_AS), less
than a step in one row needs. And everywhere: torch's allocator refuses in every matrix product of a step, one after the
other, forth and back. A run survives when it ends with the weights of the run that takes the smaller rows by itself.
Numbers go wrong by a bit of the weights that flips, by a token without numbers and by a learning rate that overflows.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import torch
import toys
from _row import Row, parser, report, row_since
from allocator import FailingAllocator

from phinetune.errors import PhinetuneError
from phinetune.events import Event, Finished, RolledBack, StepDone, StepSkipped, Warned
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.sheet.findings import Pair
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit

LETTER = "Ω"


def main() -> int:
    options = parser("Let memory run out and numbers go wrong in the middle of training.")
    options.add_argument("--limited", type=int, help="(for itself) train with so many MB more than at the start")
    chosen = options.parse_args()
    if chosen.limited is not None:
        print(json.dumps(_train_limited(chosen.limited)))
        return 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        rows = [
            _in_every_product(place, 25 if chosen.short else 1),
            _for_real(chosen.short),
            _flips(place, 2 if chosen.short else 12),
            _unreadable(place),
            _normal(place, 2 if chosen.short else 12),
        ]
    return report(rows, as_json=chosen.json)


class Run:
    """A toy run of 12 steps of six pairs. `before` sees every event before the run goes on."""

    def __init__(
        self,
        folder: Path,
        *,
        pairs_per_row: int = 6,
        resume: bool = False,
        stop_after: int = 10**9,
        before: Callable[[Run, Event], None] = lambda _, __: None,
        base: Any = None,
        odd: str = "",
        **settings: Any,
    ) -> None:
        chosen = TrainSettings(**{"epochs": 3, "learning_rate": 5e-3, "batch_size": 6, "grad_accum": 1} | settings)
        self.model = lora.attach(base or toys.phi(), LoraSettings(r=4, dropout=0.1), "toy", chosen.seed)
        self.checkpoints = Checkpoints(RunFolder(folder), {}, chosen.keep_checkpoints)
        self.events: list[Event] = []
        for event in fit(
            self.model,
            _corpus(odd),
            chosen,
            self.checkpoints,
            pairs_per_row=pairs_per_row,
            resume_from=self.checkpoints.newest_good()[0] if resume else None,
            stop_requested=lambda: max((e.step for e in self.of(StepDone)), default=0) >= stop_after,
        ):
            self.events.append(event)
            before(self, event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def weights(self) -> list[torch.Tensor]:
        return [parameter.detach() for _, parameter in lora.trainable(self.model)]

    def equals(self, other: Run) -> bool:
        return all(torch.equal(a, b) for a, b in zip(self.weights, other.weights, strict=True))

    @property
    def is_sound(self) -> bool:
        return bool(self.of(Finished)) and all(bool(torch.isfinite(weights).all()) for weights in self.weights)


def _corpus(odd: str = "") -> Corpus:
    pairs = [Pair(question=f"{q} ({i})", answer=a + odd * (i == 7), row=i) for i, (q, a) in enumerate(toys.PAIRS * 4)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)
    return Corpus(examples[:20], examples[20:])


def _in_every_product(folder: Path, stride: int) -> Row:
    """Memory is refused in the n-th matrix product after step 5, for every n that the step has."""
    start, failures, tried, product = time.monotonic(), [], 0, 1
    Run(folder / "small", stop_after=5)
    expected = Run(folder / "small", resume=True, pairs_per_row=3)
    while True:
        with FailingAllocator() as allocator:

            def arm(_: Run, event: Event, allocator: FailingAllocator = allocator, product: int = product) -> None:
                if isinstance(event, StepDone):
                    allocator.fail_in = product if event.step == 5 else 0

            try:
                run = Run(folder / str(product), before=arm)
            except (RuntimeError, PhinetuneError) as error:
                failures.append(f"product {product}: {error}")
                run = None
        if allocator.failures == 0:
            break
        tried += 1
        if run is not None and not run.equals(expected):
            failures.append(f"product {product}: other weights than with smaller rows")
        product += stride
    what = "memory refused in one product of a step, forth and back: the run of smaller rows, bit for bit"
    return row_since(start, what, tried, failures)


def _for_real(short: bool) -> Row:
    """A process that may not take more addresses, in steps from plenty to too few."""
    start, failures = time.monotonic(), []
    limits = (400, 60) if short else (1000, 400, 300, 200, 150, 100, 80, 60, 40, 20)
    for limit in limits:
        command = [sys.executable, __file__, "--limited", str(limit)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        try:
            told = json.loads(done.stdout)
        except ValueError:
            failures.append(f"{limit} MB: ended with {done.returncode}: {done.stderr.strip()[-300:]}")
            continue
        if told["ended"] not in ("finished", "does not fit") or not told["sound"]:
            failures.append(f"{limit} MB: {told}")
        print(f"{limit} MB: {told['ended']}, {told['steps']} steps, warned {told['warned']}", file=sys.stderr)
    return row_since(start, "memory limited for real: finished, or told what it takes", len(limits), failures)


def _train_limited(megabytes: int) -> dict[str, Any]:
    """Train a wider toy on long rows, with so many MB of addresses left when the first step begins."""
    import resource

    import psutil

    base = toys.llama(
        hidden_size=256, intermediate_size=1024, num_hidden_layers=6, num_key_value_heads=4, max_position_embeddings=512
    )
    pairs = [Pair(question=f"{q} ({i})", answer=" ".join([a] * 8), row=i) for i, (q, a) in enumerate(toys.PAIRS * 8)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 256).examples(pairs)
    settings = TrainSettings(epochs=1, batch_size=16, grad_accum=1)
    model = lora.attach(base, LoraSettings(r=8), "toy", settings.seed)
    told: dict[str, Any] = {"ended": "", "warned": [], "steps": 0}
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(RunFolder(Path(folder)), {}, 2)
        try:
            for event in fit(model, Corpus(examples[:32], examples[32:]), settings, checkpoints):
                if isinstance(event, StepDone):
                    told["steps"] += 1
                if event.__class__.__name__ == "Validated" and event.step == 0:
                    limit = psutil.Process().memory_info().vms + megabytes * 1_000_000
                    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
                if isinstance(event, Warned):
                    told["warned"].append(event.code)
                if isinstance(event, Finished):
                    told["ended"] = event.stopped
        except PhinetuneError as error:
            told["ended"] = "does not fit" if "does not fit" in error.message else error.message
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        told["sound"] = all(bool(torch.isfinite(parameter).all()) for _, parameter in lora.trainable(model))
    return told


def _flips(folder: Path, last: int) -> Row:
    """A weight becomes no number after each step in turn, once."""
    start, failures = time.monotonic(), []
    for step in range(1, last + 1):

        def flip(run: Run, event: Event, step: int = step) -> None:
            if isinstance(event, StepDone) and event.step == step and not run.of(RolledBack):
                with torch.no_grad():
                    run.weights[1][0, 0] = float("nan")

        run = Run(folder / f"flip-{step}", before=flip)
        taken = [event.step for event in run.checkpoints.history(12) if isinstance(event, StepDone)]
        if not run.is_sound or len(run.of(RolledBack)) != 1 or taken != list(range(1, 13)):
            failures.append(f"after step {step}: {[type(event).__name__ for event in run.events][-5:]}")
    return row_since(start, "a weight that becomes no number: back, and on at half the rate", last, failures)


def _unreadable(folder: Path) -> Row:
    """One token has no numbers: the steps with it are skipped, in every number format."""
    start, failures = time.monotonic(), []
    formats = (torch.float32, torch.bfloat16, torch.float16)
    for dtype in formats:
        base = toys.phi().to(dtype)
        with torch.no_grad():
            base.model.embed_tokens.weight[toys.tokenizer()(LETTER).input_ids[-1]] = float("nan")
        run = Run(folder / str(dtype), base=base, odd=LETTER)
        if not run.is_sound or len(run.of(StepSkipped)) != 3 or run.of(RolledBack):
            failures.append(f"{dtype}: {len(run.of(StepSkipped))} skipped, {len(run.of(RolledBack))} returns")
    return row_since(start, "a pair without numbers: its steps skipped", len(formats), failures)


def _normal(folder: Path, seeds: int) -> Row:
    """Runs with nothing wrong: none of their steps is skipped."""
    start, failures, steps = time.monotonic(), [], 0
    rates = (1e-3, 5e-3, 2e-2)
    for seed in range(seeds):
        for rate in rates:
            run = Run(folder / f"{seed}-{rate}", epochs=20, learning_rate=rate, seed=seed, patience=0)
            steps += len(run.of(StepDone))
            if run.of(StepSkipped) or run.of(RolledBack):
                failures.append(f"seed {seed}, rate {rate}: {[event.step for event in run.of(StepSkipped)]}")
    return row_since(start, f"normal runs, {steps:,} steps: none skipped", seeds * len(rates), failures)


if __name__ == "__main__":
    sys.exit(main())
