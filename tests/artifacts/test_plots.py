"""The pictures: there whatever the run was like, the same for the same figures, and of the size they promise."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path

import numpy as np
import pytest

from phinetune.artifacts import plots
from phinetune.artifacts.metrics import MetricsLog, MetricsRow
from phinetune.errors import RunError
from phinetune.events import StepDone, Validated
from phinetune.run_folder import RunFolder

BASE = MetricsRow(0, 0.0, None, 3.0, None, None, 0, 0.0)


def _rows(steps: int, per_epoch: int, validate_every: int = 0, rise: float = 0.0) -> list[MetricsRow]:
    noise = np.random.default_rng(0).normal(0, 0.1, steps + 1)
    rows = []
    for step in range(1, steps + 1):
        done = step / steps
        measured = 2.3 + 0.5 * np.exp(-6 * done) + rise * max(0, done - 0.4)
        is_measured = validate_every and step % validate_every == 0
        rows.append(
            MetricsRow(
                step=step,
                epoch=step / per_epoch,
                train_loss=2 + 2 * float(np.exp(-8 * done)) + float(noise[step]),
                eval_loss=float(measured) if is_measured else None,
                learning_rate=2e-4 * (1 - done),
                grad_norm=1.0,
                tokens=1000,
                seconds=1.0,
            )
        )
    return rows


def _size(path: Path) -> tuple[int, ...]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", data[16:24])


def test_both_pictures_of_a_running_run_are_drawn_from_its_csv_alone(tmp_path):
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder)
    for event in (StepDone(1, 0.5, 3.0, 1e-4, 1.0, 100, 0.5), Validated(1, 0.5, 2.9, True, 50, 0.1)):
        log.consume(event)
    curves, comparison = plots.draw_run(folder, title="faq.xlsx")
    assert (curves, comparison) == (folder.curves_png, folder.comparison_png)
    assert _size(curves) == (2250, 1530)
    assert _size(comparison) == (2100, 1200)
    assert {path.name for path in folder.visuals.iterdir()} == {
        "training_metrics.csv",
        "training_curves.png",
        "loss_comparison.png",
    }


def test_a_run_without_figures_has_no_pictures(tmp_path):
    with pytest.raises(RunError, match="is missing"):
        plots.draw_run(RunFolder(tmp_path))


def test_the_same_rows_make_the_same_bytes_and_others_do_not(tmp_path):
    rows = _rows(20, 10, 5)
    pictures = []
    for drawn in (rows, rows, [*rows[:-1], MetricsRow(20, 2.0, 1.0, 1.9, 0.0, 1.0, 1000, 1.0)]):
        plots.draw_loss_comparison(drawn, tmp_path / "x.png")
        pictures.append((tmp_path / "x.png").read_bytes())
    assert pictures[0] == pictures[1] != pictures[2]
    assert b"Software" not in pictures[0]


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([BASE], id="the base model only"),
        pytest.param([BASE, *_rows(3, 3, 3)], id="three steps, one epoch"),
        pytest.param(_rows(30, 60), id="no validation, half an epoch"),
        pytest.param(_rows(2000, 250, 50)[1000:], id="2,000 steps, the first half lost"),
    ],
)
def test_no_run_is_too_short_too_long_or_too_bare_for_curves(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(plots, "DPI", 30)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.draw_curves(rows, tmp_path / "x.png")
    assert _size(tmp_path / "x.png") == (450, 306)


def _texts(monkeypatch, rows, title="", draw=plots.draw_loss_comparison, kept=None) -> list[str]:
    """All that is written in the picture."""
    figures = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: figures.append(figure))
    draw(rows, Path("unused.png"), title, kept)
    return [text.get_text() for text in figures[0].findobj(lambda artist: hasattr(artist, "get_text"))]


def test_the_comparison_says_what_came_out(monkeypatch):
    rows = [BASE, *_rows(100, 20, 10)]
    lowest = min(row.eval_loss for row in rows if row.eval_loss is not None)
    texts = _texts(monkeypatch, rows)
    assert f"Lower is better: held-out loss fell from 3.00 to {lowest:.2f}" in texts
    assert f"lowest: {lowest:.2f} at step 100" in texts
    assert "before training 3.00" in texts


@pytest.mark.parametrize("draw", [plots.draw_loss_comparison, plots.draw_curves])
def test_the_state_that_was_kept_is_called_so_and_the_best_only_where_it_is_another(monkeypatch, draw):
    rows = [BASE, *_rows(100, 20, 10, rise=1.0)]
    measured = {row.step: row.eval_loss for row in rows if row.eval_loss is not None}
    best = min(list(measured)[1:], key=measured.get)
    assert best < 100
    lowest, last = f"{measured[best]:.2f} at step {best}", f"{measured[100]:.2f} at step 100"

    def labels(kept: int | None) -> set[str]:
        return {text for text in _texts(monkeypatch, rows, "", draw, kept) if "at step" in text}

    assert labels(best) == {f"kept: {lowest}"}
    assert labels(100) == {f"kept: {last}", f"lowest: {lowest}"}
    assert labels(None) == labels(95) == {f"lowest: {lowest}"}


def test_the_picture_reads_from_the_run_which_state_was_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(plots, "DPI", 30)
    kept = []
    monkeypatch.setattr(plots, "draw_loss_comparison", lambda *given: kept.append(given[-1]))
    folder = RunFolder(tmp_path)
    log = MetricsLog(folder, [BASE, *_rows(100, 20, 10)])
    log.write()
    plots.draw_run(folder)
    folder.metrics_json.write_text('{"kept_step": 40}')
    plots.draw_run(folder)
    assert kept == [None, 40]


def test_the_comparison_says_that_validation_rose_again(monkeypatch):
    (heading,) = [text for text in _texts(monkeypatch, _rows(100, 20, 10, rise=1.0)) if text.startswith("Lower")]
    assert heading.endswith(", then rose")


def test_the_comparison_does_not_praise_a_run_that_made_it_worse(monkeypatch):
    rows = [MetricsRow(0, 0.0, None, 1.0, None, None, 0, 0.0), *_rows(100, 20, 10)]
    assert "Lower is better: held-out loss never fell below its first 1.00" in _texts(monkeypatch, rows)


def test_a_panel_without_data_says_why(monkeypatch):
    assert _texts(monkeypatch, [], draw=plots.draw_curves).count("No training step yet") == 2
    assert "Nothing held out in this run" in _texts(monkeypatch, _rows(3, 3), draw=plots.draw_curves)


def test_a_title_is_text_and_nothing_else(tmp_path, monkeypatch):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.draw_loss_comparison(_rows(3, 3), tmp_path / "x.png", "cost $\\frac{$ in 数据\n.xlsx")
    assert "cost $\\frac{$ in □□ .xlsx" in _texts(monkeypatch, [], "cost $\\frac{$ in 数据\n.xlsx")


def test_labels_of_lines_that_end_together_stand_apart(monkeypatch):
    kept = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    rows = [MetricsRow(n, n / 5, 2 - n / 10, 2.0 - n / 10 + 0.001, 1e-4, 1.0, 10, 1.0) for n in range(1, 11)]
    plots.draw_loss_comparison(rows, Path("unused.png"))
    figure = kept[0]
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts if text.get_text()[:5] in ("train", "held-")]
    assert len(boxes) == 2
    assert not boxes[0].overlaps(boxes[1])
    assert all(box.x1 < figure.bbox.x1 for box in boxes)
