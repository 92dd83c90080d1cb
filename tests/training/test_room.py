"""Memory that runs out in the middle of a run: the step is done again in smaller rows, and it is the same step."""

from __future__ import annotations

import json
import sys
from contextlib import closing
from pathlib import Path

import pytest
import torch
import toys
import warm
from allocator import FailingAllocator

from phinetune.errors import TrainingError
from phinetune.events import Finished, Saved, StepDone, Validated, Warned
from phinetune.model import lora
from phinetune.model.graphs import GraphedRows
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit
from phinetune.training.progress import Progress
from phinetune.training.room import Room


def _corpus() -> Corpus:
    pairs = [toys.Pair(f"{q} ({i})", a, i) for i, (q, a) in enumerate(toys.PAIRS * 4)]
    examples = Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)
    return Corpus(examples[:20], examples[20:])


class _Run:
    """A run of 12 steps of six pairs, all in one row; `before` sees every event before the run goes on."""

    def __init__(self, folder, *, pairs_per_row=6, resume=False, stop_after=None, dropout=0.1, before=lambda _: None):
        settings = TrainSettings(epochs=3, learning_rate=5e-3, batch_size=6, grad_accum=1)
        self.model = lora.attach(toys.phi(), LoraSettings(r=4, dropout=dropout), "toy", settings.seed)
        self.checkpoints = Checkpoints(RunFolder(folder), {}, settings.keep_checkpoints)
        self.events = []
        for event in fit(
            self.model,
            _corpus(),
            settings,
            self.checkpoints,
            pairs_per_row=pairs_per_row,
            resume_from=self.checkpoints.newest_good()[0] if resume else None,
            stop_requested=lambda: stop_after is not None and self.of(StepDone)[-1].step >= stop_after,
        ):
            self.events.append(event)
            before(event)

    def of(self, kind):
        return [event for event in self.events if isinstance(event, kind)]

    @property
    def warnings(self):
        return [event.code for event in self.of(Warned)]

    @property
    def weights(self):
        return [parameter.detach().clone() for _, parameter in lora.trainable(self.model)]

    @property
    def figures(self):
        return {s.step: (s.train_loss, s.grad_norm, s.learning_rate) for s in self.of(StepDone)}


def _equal(a, b) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def _fails_after(step: int, allocator: FailingAllocator, in_product: int):
    def before(event):
        if isinstance(event, StepDone) and event.step == step:
            allocator.fail_in = in_product

    return before


# A step of one row makes some 60 products: the first, two on the way forth, two on the way back.
@pytest.mark.parametrize("in_product", [1, 9, 20, 36, 50])
def test_from_the_failed_step_on_the_run_is_bit_for_bit_the_one_with_smaller_rows(tmp_path, in_product):
    with FailingAllocator() as allocator:
        failed = _Run(tmp_path / "failed", before=_fails_after(5, allocator, in_product))
    assert allocator.failures == 1
    assert failed.warnings == ["out_of_memory"]
    assert "3 pairs at a time instead of 6" in failed.of(Warned)[0].message
    _Run(tmp_path / "small", stop_after=5)
    small = _Run(tmp_path / "small", resume=True, pairs_per_row=3)
    assert sorted(small.figures) == list(range(6, 13))
    assert {step: failed.figures[step] for step in small.figures} == small.figures
    assert [v.eval_loss for v in failed.of(Validated) if v.step > 5] == [v.eval_loss for v in small.of(Validated)]
    assert _equal(failed.weights, small.weights)


def test_the_step_is_the_same_up_to_rounding_where_nothing_is_dropped(tmp_path):
    whole = _Run(tmp_path / "whole", dropout=0.0)
    with FailingAllocator() as allocator:
        failed = _Run(tmp_path / "failed", dropout=0.0, before=_fails_after(4, allocator, 20))
    assert allocator.failures == 1
    for step, figures in whole.figures.items():
        assert failed.figures[step] == pytest.approx(figures, rel=1e-3)
    assert [s.tokens for s in failed.of(StepDone)] == [s.tokens for s in whole.of(StepDone)]


def test_a_resume_knows_what_did_not_fit(tmp_path):
    with FailingAllocator() as allocator:
        whole = _Run(tmp_path / "whole", before=_fails_after(2, allocator, 30))
        _Run(tmp_path / "parts", stop_after=6, before=_fails_after(2, allocator, 30))
    assert allocator.failures == 2
    rest = _Run(tmp_path / "parts", resume=True)
    assert rest.warnings == []
    assert _equal(rest.weights, whole.weights)
    state = json.loads((tmp_path / "parts/checkpoints/checkpoint-12/state.json").read_text())["progress"]
    assert (state["pairs_per_row"], state["recompute"]) == (3, False)
    assert ["Warned", "out_of_memory"] in [[kind, event.get("code")] for kind, event in state["history"]]


def test_single_pairs_are_recomputed_and_then_there_is_no_more_to_give(tmp_path):
    plain = _Run(tmp_path / "plain", dropout=0.0)
    with FailingAllocator() as allocator:

        def again(event):
            if isinstance(event, StepDone) and event.step == 1:
                allocator.fail_in = 7
            if isinstance(event, Warned) and len(seen) < 2:
                seen.append(event.message)
                allocator.fail_in = 7

        seen: list[str] = []
        run = _Run(tmp_path / "small", dropout=0.0, before=again)
    assert allocator.failures == 3  # with six, three and one
    assert run.warnings == ["out_of_memory"] * 3
    assert "computed twice" in run.of(Warned)[-1].message
    assert run.model.get_base_model().is_gradient_checkpointing
    for ours, expected in zip(run.weights, plain.weights, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-2, atol=1e-4)
    with (
        FailingAllocator() as allocator,
        pytest.raises(TrainingError, match=r"needs about 0\.\d GB, of .* GB") as caught,
    ):

        def always(event):
            if isinstance(event, StepDone | Warned):
                allocator.fail_in = 7

        _Run(tmp_path / "never", before=always)
    assert "--max-length" in caught.value.hint
    assert "phinetune plan" in caught.value.hint


def test_validation_goes_on_in_smaller_rows_with_the_same_loss(tmp_path):
    whole = _Run(tmp_path / "whole", dropout=0.0, pairs_per_row=2)
    longest = max(len(example.ids) for example in (*_corpus().train, *_corpus().validation))
    held_out = sum(len(example.ids) for example in _corpus().validation)
    with FailingAllocator(largest_row=2 * longest) as allocator:
        small = _Run(tmp_path / "small", dropout=0.0, pairs_per_row=2)
    assert held_out > 2 * longest
    assert allocator.failures == len(small.warnings) > 0
    assert set(small.warnings) == {"out_of_memory_validation"}
    for ours, expected in zip(small.of(Validated), whole.of(Validated), strict=True):
        assert ours.eval_loss == pytest.approx(expected.eval_loss, rel=1e-5)
        assert ours.tokens == expected.tokens
    assert _equal(small.weights, whole.weights)


def test_a_checkpoint_that_did_not_fit_is_written_without_the_gradients(tmp_path, monkeypatch):
    from phinetune.training import checkpoint

    real, calls = checkpoint.save_file, []

    def save_file(tensors, path):
        calls.append(path)
        if len(calls) == 1:
            raise MemoryError
        real(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    run = _Run(tmp_path)
    assert len(calls) == 1 + len(run.of(Saved))
    assert run.of(Finished)[0].stopped == "finished"
    assert not list((tmp_path / "checkpoints").glob(".partial-*"))


class _Graphs(GraphedRows):
    """Graphs that hold something whenever a row was recorded."""

    def __init__(self) -> None:
        self.records, self.held = True, False

    def give_up(self) -> bool:
        held, self.held = self.held, False
        return held


def test_recorded_graphs_are_given_up_before_rows_are_halved_and_a_resume_remembers():
    progress, tried = Progress(), []

    def room() -> tuple[Room, _Graphs]:
        examples, graphs = _corpus().train, _Graphs()
        made = Room(lora.attach(toys.phi(), LoraSettings(r=4), "toy", 1), examples, examples, progress, 12)
        made.watch(graphs)
        return made, graphs

    first, graphs = room()

    def compute(pairs: int) -> None:
        tried.append((pairs, graphs.records))
        graphs.held = graphs.records
        if (pairs, graphs.records) > (3, False):
            raise MemoryError

    said = list(first.for_step(1, compute))
    assert tried == [(12, True), (12, False), (6, True), (6, False), (3, True), (3, False)]
    assert [event.code for event in said] == ["out_of_memory"] * 5
    again, graphs = room()
    assert (again.pairs_per_row, graphs.records) == (3, False)


def test_validation_is_tried_again_as_it_was_where_graphs_were_given_up():
    examples, graphs, tried = _corpus().train, _Graphs(), []
    room = Room(lora.attach(toys.phi(), LoraSettings(r=4), "toy", 1), examples, examples, Progress(), 6)
    room.watch(graphs)
    graphs.held = True

    def compute(tokens: int) -> None:
        tried.append(tokens)
        if len(tried) == 1:
            raise MemoryError

    assert list(room.for_validation(compute)) == []
    assert len(tried) == 2
    assert tried[0] == tried[1]
    assert graphs.records


def test_the_check_before_training_makes_do_with_short_pairs(tmp_path):
    """The plain way through the longest pair takes more memory than training itself."""
    plain = _Run(tmp_path / "plain", pairs_per_row=1)
    with FailingAllocator() as allocator:
        allocator.fail_in = 25  # of the first passes
        run = _Run(tmp_path / "run", pairs_per_row=1)
    assert allocator.failures == 1
    assert run.warnings == []
    assert _equal(run.weights, plain.weights)


def test_an_error_that_is_not_about_memory_is_not_tried_again(tmp_path):
    def wrong():
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with FailingAllocator(error=wrong) as allocator, pytest.raises(RuntimeError, match="shapes cannot"):
        _Run(tmp_path, before=_fails_after(2, allocator, 5))
    assert allocator.failures == 1


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs a limit that Linux holds")
def test_a_process_that_may_take_no_more_memory_goes_on_in_smaller_rows():
    """RLIMIT_AS: the allocator itself refuses, in a process of its own. A row of 16 pairs takes some 250 MB there; how
    much of it the process has already depends on the machine and its threads, so several limits are tried.
    """
    script = Path(__file__).parents[2] / "torture" / "recover.py"
    for megabytes in (200, 260, 330, 400, 150):
        with closing(warm.Process(script, "--limited", megabytes)) as process:
            said = process.finish(timeout=300)
        assert process.returncode == 0, said
        told = json.loads(said.splitlines()[-1])
        assert told["ended"] in ("finished", "does not fit")
        assert told["sound"]
        if told["ended"] == "finished" and set(told["warned"]) == {"out_of_memory"}:
            assert told["steps"] == 2
            return
    pytest.fail("no limit was met with smaller rows")
