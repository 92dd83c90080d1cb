"""The figures of a run: what is written down, what a resume keeps, and what is told at the end."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from phinetune.artifacts.metrics import COLUMNS, MetricsLog, MetricsRow, best_validation, read_metrics, summary
from phinetune.errors import RunError
from phinetune.events import Endings, Finished, Recalled, RolledBack, Saved, StepDone, StepSkipped, Validated, Warned
from phinetune.run_folder import RunFolder


def _step(step: int, loss: float = 2.0, tokens: int = 100, seconds: float = 0.5, grad_norm: float = 1.0) -> StepDone:
    return StepDone(step, step / 2, loss, 1e-4, grad_norm, tokens, seconds)


def _validated(step: int, loss: float) -> Validated:
    return Validated(step, step / 2, loss, is_best=True, tokens=50, seconds=9.0)


def _row(step: int, train: float | None, measured: float | None = None, tokens: int = 100) -> MetricsRow:
    return MetricsRow(step, step / 2, train, measured, 1e-4 if train else None, 1.0 if train else None, tokens, 0.5)


def _log(folder: Path, *events) -> MetricsLog:
    log = MetricsLog(RunFolder(folder))
    for event in events:
        log.consume(event)
    return log


def test_a_step_makes_a_row_and_its_validation_completes_it(tmp_path):
    log = _log(tmp_path, _step(1, 3.0), _step(2, 2.5), _validated(2, 2.75))
    assert log.rows == [
        MetricsRow(1, 0.5, 3.0, None, 1e-4, 1.0, 100, 0.5),
        MetricsRow(2, 1.0, 2.5, 2.75, 1e-4, 1.0, 100, 0.5),
    ]


def test_validation_before_training_is_a_row_without_train_figures(tmp_path):
    log = _log(tmp_path, _validated(0, 2.8), _step(1))
    assert log.rows[0] == MetricsRow(0, 0.0, None, 2.8, None, None, 0, 0.0)
    lines = RunFolder(tmp_path).metrics_csv.read_text().splitlines()
    assert lines == ["step,epoch,train_loss,eval_loss,learning_rate,grad_norm,tokens,seconds", "0,0.0,,2.8,,,0,0.0"]


def test_the_csv_gives_back_every_digit(tmp_path):
    log = _log(tmp_path, _validated(0, 1 / 3), _step(1, math.pi, seconds=1e-7), _step(2, 2 / 3), _validated(2, 0.1))
    assert read_metrics(RunFolder(tmp_path).metrics_csv) == log.rows


def test_the_csv_is_written_at_validations_checkpoints_and_the_end_only(tmp_path):
    path = RunFolder(tmp_path).metrics_csv
    log = _log(tmp_path, _step(1), Warned("code", "message"))
    assert not path.exists()
    written = []
    finished = Finished(4, 2.0, "finished", 2, 2, 2.0, 1.0, 400)
    for event in (_validated(1, 2.0), _step(2), Saved(2, "x", False), _step(3), _step(4), finished):
        log.consume(event)
        written.append(len(read_metrics(path)))
    assert written == [1, 1, 2, 2, 2, 4]


def test_a_failed_write_leaves_the_earlier_csv_and_nothing_else(tmp_path, monkeypatch):
    log = _log(tmp_path, _step(1), _validated(1, 2.0))
    path = RunFolder(tmp_path).metrics_csv
    before = path.read_bytes()

    def full(self, data):
        with self.open("wb") as file:
            file.write(data[:20])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match="No space left"):
        log.consume(_validated(2, 1.0))
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_gradient_that_overflowed_is_an_empty_cell(tmp_path):
    log = _log(tmp_path, _step(1, grad_norm=math.inf), _validated(1, 2.0))
    assert log.rows[0].grad_norm is None
    assert read_metrics(RunFolder(tmp_path).metrics_csv) == log.rows


def _skip(step: int, loss: float | None = None) -> StepSkipped:
    return StepSkipped(step, step / 4, "spike" if loss else "not_finite", loss, None, 100, 0.5, (3, 4))


def test_a_skipped_step_is_a_row_without_a_rate_and_survives_the_file(tmp_path):
    log = _log(tmp_path, _step(1), _skip(2), _skip(3, 9.0), _step(4), _validated(4, 2.0))
    assert [row.was_skipped for row in log.rows] == [False, True, True, False]
    assert log.rows[2].train_loss == 9.0
    assert read_metrics(RunFolder(tmp_path).metrics_csv) == log.rows
    figures = _summary(log.rows)
    assert (figures["skipped_steps"], figures["steps"], figures["tokens"]) == (2, 4, 400)
    assert figures["final_train_loss"] == pytest.approx((log.rows[0].train_loss + log.rows[3].train_loss) / 2)


def test_a_validation_of_a_skipped_step_stands_in_its_row(tmp_path):
    log = _log(tmp_path, _step(1), _skip(2), _validated(2, 2.5))
    assert log.rows[1].was_skipped
    assert log.rows[1].eval_loss == 2.5


def test_rows_of_a_way_that_was_left_are_dropped_from_the_log_and_from_the_file(tmp_path):
    events = [_step(1), _validated(1, 2.0), _step(2), _validated(2, 2.2), _skip(3), RolledBack(3, 1, 0.5, 9.0)]
    log = _log(tmp_path, *events)
    assert [(row.step, row.eval_loss) for row in log.rows] == [(1, 2.0)]
    assert read_metrics(RunFolder(tmp_path).metrics_csv) == log.rows
    assert log.rollbacks == 1
    for event in (_step(2), _validated(2, 1.9)):
        log.consume(event)
    assert [(row.step, row.eval_loss) for row in log.rows] == [(1, 2.0), (2, 1.9)]
    assert _summary(log.rows, rollbacks=log.rollbacks)["rollbacks"] == 1


HEAD = ",".join(COLUMNS) + "\n"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "does not begin with the line step,epoch"),
        ("step,loss\n1,2\n", "does not begin with the line step,epoch"),
        (HEAD + "1,0.5,3.0,,1e-4,1.0,100,0.5\n2,1.0,2.", "line 3: 3 values where 8 belong"),
        (HEAD + "1,0.5,three,,1e-4,1.0,100,0.5\n", "line 2: train_loss is 'three'"),
        (HEAD + "1,0.5,nan,,1e-4,1.0,100,0.5\n", "line 2: train_loss is 'nan'"),
        (HEAD + ",0.5,3.0,,1e-4,1.0,100,0.5\n", "line 2: step is empty"),
        (HEAD + "1.5,0.5,3.0,,1e-4,1.0,100,0.5\n", "line 2: step is '1.5'"),
        (HEAD + "2,1,3.0,,1e-4,1,1,1\n2,1,3.0,,1e-4,1,1,1\n", "line 3: step 2 comes after step 2"),
    ],
)
def test_a_damaged_csv_is_refused_and_the_place_named(tmp_path, text, told):
    path = tmp_path / "training_metrics.csv"
    path.write_text(text)
    with pytest.raises(RunError) as caught:
        read_metrics(path)
    assert told in caught.value.message
    assert str(path) in caught.value.message


def test_a_csv_that_is_not_text_or_not_there_is_refused(tmp_path):
    (tmp_path / "x.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RunError, match="is not text"):
        read_metrics(tmp_path / "x.csv")
    with pytest.raises(RunError, match="is missing"):
        read_metrics(tmp_path / "none.csv")


def _summary(rows, **changes):
    known = {
        "trainable_parameters": 10,
        "total_parameters": 1000,
        "train_pairs": 8,
        "validation_pairs": 2,
        "answers_cut": 1,
        "stopped": "finished",
        "seconds": 60.0,
    }
    return summary(rows, **(known | changes))


def test_the_summary_of_a_run_computed_by_hand():
    base = MetricsRow(0, 0.0, None, 3.0, None, None, 0, 0.0)
    rows = [base, _row(1, 4.0), _row(2, 3.0, 2.0), _row(3, 2.0, tokens=300), _row(4, 1.0, 2.5, tokens=100)]
    assert _summary(rows, peak_memory_gb=1.5) == {
        "final_train_loss": 1.75,  # the second epoch: (2.0 * 300 + 1.0 * 100) / 400
        "first_eval_step": 0,
        "first_eval_loss": 3.0,
        "final_eval_loss": 2.5,
        "best_eval_loss": 2.0,
        "best_step": 2,
        "best_perplexity": math.exp(2.0),
        "kept_step": None,
        "kept_eval_loss": None,
        "own_asked": None,
        "own_right_kept": None,
        "own_right_last": None,
        "endings_asked": None,
        "endings_known": None,
        "steps": 4,
        "epochs": 2.0,
        "seconds": 60.0,
        "tokens": 600,
        "real_tokens_per_s": 300.0,  # 600 tokens in four steps of half a second
        "peak_memory_gb": 1.5,
        "trainable_parameters": 10,
        "total_parameters": 1000,
        "train_pairs": 8,
        "validation_pairs": 2,
        "answers_cut": 1,
        "skipped_steps": 0,
        "rollbacks": 0,
        "stopped": "finished",
    }


def test_the_summary_of_the_state_that_was_kept_and_of_the_last_one(tmp_path):
    log = _log(tmp_path, _step(2), _validated(2, 2.0), _step(4), _validated(4, 2.5))
    log.consume(Recalled(4, 50, 45))
    log.consume(Endings(4, 6, 5))
    last = _summary(log.rows, kept_step=4, recalled=log.recalled, endings=log.endings)
    assert (last["endings_asked"], last["endings_known"]) == (6, 5)
    assert (last["kept_eval_loss"], last["own_asked"], last["own_right_kept"], last["own_right_last"]) == (
        2.5,
        50,
        45,
        45,
    )
    log.consume(Recalled(2, 50, 3))
    best = _summary(log.rows, kept_step=2, recalled=log.recalled)
    assert (best["kept_eval_loss"], best["own_right_kept"], best["own_right_last"]) == (2.0, 3, 45)
    assert _summary(log.rows, kept_step=3)["kept_eval_loss"] is None


def test_the_untrained_model_is_never_the_best_and_of_equals_the_first_is():
    rows = [MetricsRow(0, 0.0, None, 1.0, None, None, 0, 0.0), _row(1, 2.0, 1.5), _row(2, 2.0, 1.5)]
    assert best_validation(rows) == (1, 1.5)
    assert best_validation(rows[:1]) is None


def test_without_validation_the_summary_says_so_and_is_json():
    figures = _summary([_row(1, 2.0)])
    assert figures["best_eval_loss"] is figures["best_perplexity"] is figures["first_eval_step"] is None
    assert json.loads(json.dumps(figures, allow_nan=False)) == figures


def test_the_summary_of_no_rows_at_all():
    figures = _summary([], stopped="interrupted")
    assert (figures["steps"], figures["final_train_loss"], figures["real_tokens_per_s"]) == (0, None, None)
