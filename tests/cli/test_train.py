"""The command `train`, around a run that is pretended."""

from __future__ import annotations

import webbrowser

import pytest

import phinetune
from phinetune.api.run import Run
from phinetune.cli import main
from phinetune.run_folder import RunFolder


@pytest.fixture
def shown(monkeypatch):
    pages: list[str] = []
    monkeypatch.setattr(webbrowser, "open", pages.append)
    return pages


def _train(monkeypatch, tmp_path, *flags: str, stopped: str = "finished", with_report: bool = True) -> str:
    """Run the command, and return where its report would be."""
    folder = RunFolder(tmp_path / "a run")
    if with_report:
        folder.report_html.parent.mkdir(parents=True)
        folder.report_html.write_text("")
    figures = {"train_loss": 1.0, "eval_loss": 1.5, "first_eval_loss": 3.0, "kept_step": 9, "best_step": 9}
    run = Run(
        folder=folder, steps=9, epochs=1.0, stopped=stopped, seconds=1.0, real_tokens_per_s=None, peak_memory_gb=None,
        trainable_parameters=1, endings_asked=49, endings_known=45, **figures,
    )  # fmt: skip
    monkeypatch.setattr(phinetune, "train", lambda *_, **options: run if "open_it" not in options else None)
    with pytest.raises(SystemExit):
        main(["train", "sheet.xlsx", *flags])
    return folder.report_html.as_uri()


def test_the_report_is_shown_when_it_is_asked_for(monkeypatch, tmp_path, shown, capsys):
    assert shown == []
    page = _train(monkeypatch, tmp_path, "--open")
    assert shown == [page]
    assert "would stop after 45 of 49 held-out answers" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("flags", "how"),
    [
        ((), {}),
        (("--open", "--json"), {}),
        (("--open",), {"stopped": "interrupted"}),
        (("--open",), {"with_report": False}),
    ],
)
def test_and_not_otherwise_nor_for_a_script_nor_before_the_end(monkeypatch, tmp_path, shown, flags, how):
    _train(monkeypatch, tmp_path, *flags, **how)
    assert shown == []
