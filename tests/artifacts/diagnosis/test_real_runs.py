"""What really trained runs show, of a pretrained model and of toys."""

from __future__ import annotations

import tempfile
from pathlib import Path

import drawn
import pytest
import torch
import toys

from phinetune.artifacts.diagnosis import Diagnosis, Facts
from phinetune.artifacts.metrics import MetricsLog, read_metrics
from phinetune.model import lora
from phinetune.run_folder import RunFolder
from phinetune.settings import LoraSettings, TrainSettings
from phinetune.tokens.encode import Encoder
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training.checkpoint import Checkpoints
from phinetune.training.loop import Corpus, fit


@pytest.mark.parametrize(
    ("run", "shows"),
    [
        ("smollm2_handbook", {"validation_follows", "smooth_fall", "levelled_off"}),  # 98 of 98 facts learned
        ("smollm2_rate_too_high", {"learning_rate_too_high"}),  # at 2e-2, 20 times too high; stopped in step 8
    ],
)
def test_kept_curves_of_a_pretrained_model(run, shows):
    rows = read_metrics(Path(__file__).parents[1] / "runs" / f"{run}.csv")
    assert set(drawn.found(rows, Facts(planned_epochs=6))) == shows


def _corpus(train, held_out) -> Corpus:
    encoder = Encoder(toys.tokenizer(), PromptTemplate(), 128)
    return Corpus(*(encoder.examples([toys.Pair(*pair) for pair in part]) for part in (train, held_out)))


@pytest.fixture
def one_core():
    """A toy is too small to share between cores: with two of them busy it takes ten times as long."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _trained(corpus: Corpus, **changes) -> dict[str, Diagnosis]:
    """A real run on a toy model, and what it shows."""
    options = {"epochs": 4, "learning_rate": 5e-3, "batch_size": 4, "grad_accum": 1, "patience": 0} | changes
    settings = TrainSettings(eval_steps=4, save_steps=1000, **options)
    model = lora.attach(toys.llama(), LoraSettings(r=8, dropout=0.0), "toy", settings.seed)
    with tempfile.TemporaryDirectory() as place:
        log = MetricsLog(RunFolder(Path(place)))
        for event in fit(model, corpus, settings, Checkpoints(RunFolder(Path(place)), {}, 1)):
            log.consume(event)
        return drawn.found(log.rows, Facts(planned_epochs=settings.epochs, lora_r=8))


ASKED_AGAIN = [(f"{question} ({i})", answer) for i, (question, answer) in enumerate(toys.PAIRS * 5)]


def test_real_runs_with_a_good_and_with_bad_learning_rates(one_core):
    corpus = _corpus(ASKED_AGAIN[:24], ASKED_AGAIN[24:])
    good = _trained(corpus, epochs=10, learning_rate=1e-2)
    assert set(good) == {"validation_follows", "smooth_fall", "levelled_off"}
    assert set(_trained(corpus, learning_rate=1e-6)) == {"learning_rate_too_low"}
    assert "too_few_steps" in _trained(corpus, epochs=1, learning_rate=1e-4)
    assert "too_short" in _trained(corpus, epochs=2)
    high = _trained(corpus, epochs=10, learning_rate=0.03)
    assert {"learning_rate_too_high", "held_up"} & set(high)
    assert not {"smooth_fall", "too_short"} & set(high)


def test_real_runs_that_learn_by_heart_and_that_warm_up_for_too_long(one_core):
    found = _trained(_corpus(toys.PAIRS[:3], toys.PAIRS[3:]), epochs=60, learning_rate=3e-2)
    assert "overfitting" in found
    assert "gap" in found
    assert "warmup_too_long" in _trained(_corpus(ASKED_AGAIN[:24], ASKED_AGAIN[24:]), warmup_steps=18)
