"""The page of a run: whole, alone, and with nothing in it that a sheet could make it obey."""

from __future__ import annotations

import base64
import json
import re
import shutil
from html.parser import HTMLParser

import pytest
import toys

import phinetune
from phinetune.artifacts.diagnosis import Diagnosis
from phinetune.artifacts.report import write_report
from phinetune.cli import main
from phinetune.errors import RunError
from phinetune.run_folder import RunFolder
from toy_comparison import comparison

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'


class _Page(HTMLParser):
    """Tags, attributes and text, with every tag closed by its own kind."""

    VOID = frozenset({"meta", "img", "br", "!doctype"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.words = ""
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        assert not any(name.startswith("on") for name, _ in attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words += data


@pytest.fixture(scope="module")
def evil_run(tmp_path_factory):
    """A run on a sheet that spells out markup, compared."""
    place = tmp_path_factory.mktemp("evil")
    pairs = [(f"{EVIL} {question} {i}", f"{answer} {EVIL}") for i, (question, answer) in enumerate(toys.PAIRS * 3)]
    run = phinetune.train(
        toys.write_sheet(place / "a <b> & c.xlsx", pairs), model=str(toys.save(place / "base")), out=place / "run",
        epochs=3, lr=1e-2, patience=0,
    )  # fmt: skip
    phinetune.compare(run, max_new_tokens=20)
    return run


def test_training_leaves_a_page_that_tells_the_story(toy_run):
    page = _Page(toy_run.folder.report_html.read_text())
    for wanted in (
        "dataset.xlsx",
        "How the loss fell",
        "Your sheet",
        "Did it work?",
        "Every setting",
        "lora.r",
        "phinetune chat",
    ):
        assert wanted in page.words
    assert f"{toy_run.first_eval_loss:.2f} → {toy_run.eval_loss:.2f}" in page.words


def test_everything_is_inside_and_nothing_runs(evil_run):
    page = _Page(evil_run.folder.report_html.read_text())
    assert "script" not in page.tags
    assert page.tags.count("img") == len(page.sources) == 3  # the two pictures of the run and that of the comparison
    for source in page.sources:
        kind, _, data = source.partition(",")
        assert kind == "data:image/png;base64"
        assert base64.b64decode(data).startswith(b"\x89PNG")
    assert not re.search(r"https?://", re.sub(r"data:[^\"]+", "", evil_run.folder.report_html.read_text()))


def test_what_a_sheet_spells_out_stays_text(evil_run):
    page = _Page(evil_run.folder.report_html.read_text())
    assert EVIL in page.words
    assert "a <b> & c.xlsx" in page.words
    assert "Furthest from what you expect" in page.words


def test_answers_that_are_sentences_are_headed_by_their_word_overlap(evil_run, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(evil_run.folder.root, folder.root)
    record = json.loads(folder.answers_json.read_text())
    overlap = record["scores"]["f1"]
    for sentences, shown in ((True, "word overlap with 2 of your answers"), (False, "answers right")):
        folder.answers_json.write_text(json.dumps(record | {"asks_for_sentences": sentences}))
        head = _Page(phinetune.report(folder.root).read_text()).words.partition("Did it work?")[0]
        assert shown in head
        assert (f"{overlap['base']['mean']:.2f} → {overlap['tuned']['mean']:.2f}word overlap" in head) is sentences
        assert ("answers right" in head) is not sentences


def test_the_scores_stand_in_a_table_beside_their_picture(evil_run, tmp_path):
    folder = RunFolder(tmp_path / "run")
    shutil.copytree(evil_run.folder.root, folder.root)
    few = comparison(7).to_json()
    for record, shown in (
        (comparison(40).to_json(), ("0% → 50%of 40 answers right", "Difference (95 % interval)", "p < 0.001")),
        (few, ("0 → 3 of 7answers right, too few to tell", "7 of 7stop by themselves", "No intervals")),
        (few | {"asks_for_sentences": True}, ("word overlap with 7 of your answers, too few to tell",)),
    ):
        folder.answers_json.write_text(json.dumps(record))
        html = phinetune.report(folder.root).read_text()
        words = _Page(html).words
        for wanted in (*shown, "perplexity (e^loss)", "same order (ROUGE-L)"):
            assert wanted in words
        assert '<th scope="row">shared words (F1)</th>' in html
        assert ("By chance" in words) is (record["count"] == 40)
        assert ("% →" in words) is (record["count"] == 40)


def test_it_is_made_again_from_the_folder_alone(evil_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(evil_run.folder.root, copy)
    before = (copy / "training_visuals" / "report.html").read_text()
    (copy / "training_visuals" / "report.html").unlink()
    again = phinetune.report(copy).read_text()
    assert again.replace(">phinetune chat copy<", ">phinetune chat run<").count("<h2>") == before.count("<h2>")


def test_the_commands_are_for_the_folder_that_it_names(toy_run, tmp_path, monkeypatch):
    root = tmp_path / "my run"
    shutil.copytree(toy_run.folder.root, root)
    for here, name, command, place in (
        (root, ".", "phinetune chat .", "from the folder of this run"),
        (root, root, "phinetune chat .", "from the folder of this run"),
        (tmp_path, "my run", "phinetune chat 'my run'", "from the folder above this run"),
        (tmp_path.parent, root, "phinetune chat 'my run'", "from the folder above this run"),
    ):
        monkeypatch.chdir(here)
        words = _Page(phinetune.report(name).read_text()).words
        assert f"In a terminal, {place}" in words
        assert command in words


def test_the_diagnosis_stands_there_with_its_gravity(toy_run, tmp_path):
    shutil.copytree(toy_run.folder.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    write_report(folder, [Diagnosis("too_short", "warning", "It <still> fell.", 0.5, "More epochs.")])
    html = folder.report_html.read_text()
    assert 'class="said warning"><p>It &lt;still&gt; fell.</p>' in html
    assert "More epochs." in html


@pytest.mark.parametrize(
    ("warning", "said"),
    [
        ({"code": "html", "rows": [7]}, "Row 7"),
        ({"code": "html", "rows": [2, 3, 5]}, "Rows 2, 3, 5"),
        ({"code": "html", "rows": list(range(2, 1204))}, "Rows 2, 3, 4, 5, 6, 7, 8, 9 and 1,194 more"),
        ({"code": "empty_rows", "rows": list(range(2, 22))}, "Rows 2, 3, 4, 5, 6, 7, 8, 9 …"),
        ({"code": "html", "rows": [4, 6, 2], "sheets": ["A <1>", "A <1>", "B"]}, "Rows 4, 6 of A <1>; 2 of B"),
        ({"code": "guessed_encoding", "rows": []}, ""),
    ],
)
def test_findings_name_their_rows(toy_run, tmp_path, warning, said):
    shutil.copytree(toy_run.folder.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    findings = json.loads(folder.findings_json.read_text())
    skipped = [{"row": 9, "reason": "error value", "sheet": "B"}]
    findings |= {"warnings": [warning | {"message": "Something was found."}], "skipped": skipped}
    folder.findings_json.write_text(json.dumps(findings))
    write_report(folder, [])
    html = folder.report_html.read_text()
    shown = re.search(r"<p>Something was found\.</p>(.*?)</div>", html)
    assert shown
    assert _Page(shown[1]).words == said
    assert "9 of B" in _Page(html).words


def test_missing_and_damaged_files_are_named(toy_run, tmp_path):
    with pytest.raises(RunError, match="no folder"):
        phinetune.report(tmp_path / "none")
    shutil.copytree(toy_run.folder.root, tmp_path / "run")
    folder = RunFolder(tmp_path / "run")
    folder.config_json.write_text("{")
    with pytest.raises(RunError, match=r"training_config\.json is damaged"):
        phinetune.report(folder.root)
    folder.metrics_json.unlink()
    with pytest.raises(RunError, match=r"training_metrics\.json is missing"):
        phinetune.report(folder.root)


def test_the_command_says_where_it_is(evil_run, capsys):
    with pytest.raises(SystemExit) as done:
        main(["report", str(evil_run.folder.root), "--json"])
    assert not done.value.code
    assert json.loads(capsys.readouterr().out)["report"].endswith("report.html")
