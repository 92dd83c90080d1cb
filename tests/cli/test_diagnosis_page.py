"""The lines at the end of training: few, in the order of the diagnosis, with advice, and no markup obeyed."""

from __future__ import annotations

import io

from rich.console import Console

from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.cli.diagnosis_page import print_diagnosis


def _printed(*found: Diagnosis) -> str:
    stream = io.StringIO()
    print_diagnosis(Console(file=stream, width=200, highlight=False), found)
    return stream.getvalue()


def test_each_finding_is_a_sentence_with_its_advice_below():
    said = _printed(
        Diagnosis("leak", "warning", "Some [red]leak.", 3, "Mend [bold]it."),
        Diagnosis("smooth_fall", "good", "Smooth.", 1),
    )
    assert said.splitlines() == ["! Some [red]leak.", "  Mend [bold]it.", "✓ Smooth."]


def test_only_the_first_are_shown_and_the_rest_are_counted():
    said = _printed(*(Diagnosis("note", "note", f"Finding {place}.", 1, "Do.") for place in range(6)))
    assert "Finding 3." in said
    assert "Finding 4." not in said
    assert "2 more in training_visuals/report.html" in said


def test_nothing_found_prints_nothing():
    assert _printed() == ""
