"""The page of a comparison: the same table whatever the figures, and no surer than the questions allow."""

from __future__ import annotations

from dataclasses import replace

from phinetune.cli.comparison_page import show_comparison
from toy_comparison import comparison


def _lines(found, capsys):
    show_comparison(found)
    return capsys.readouterr().out.splitlines()


def test_the_table_fits_80_columns(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    found = comparison(12)
    loss = found.scores["loss"]
    wide = [replace(each, mean=-10.123, low=-11.123, high=-10.003) for each in (loss.tuned, loss.difference)]
    wide_loss = replace(loss, tuned=wide[0], difference=wide[1], p_value=0.5)
    lines = _lines(replace(found, scores=found.scores | {"loss": wide_loss}), capsys)
    [line] = [line for line in lines if "nats per token" in line and "p = 0.500" in line]
    assert "-10.123 (-11.123 to -10.003)" in line
    assert len(line) <= 80
    assert not any("too few questions" in line for line in lines)


def test_the_perplexity_of_both_models_stands_below_the_loss(capsys):
    found = comparison(40)
    [line] = [line for line in _lines(found, capsys) if "perplexity" in line]
    assert line.split()[-2:] == [f"{found.perplexity[side]:.1f}" for side in ("base", "tuned")]


def test_a_handful_of_questions_has_neither_interval_nor_test(capsys):
    page = "\n".join(_lines(comparison(7), capsys))
    table = page[page.index("right (by contains)") : page.index("Furthest")]
    assert "No intervals: these are too few questions" in table
    assert "(+" not in table
    assert "p " not in table
    assert "by chance" not in page
