"""The diagnosis of a finished run, from its folder."""

from __future__ import annotations

import json
import os
import shutil

import pytest

import phinetune
from phinetune.api.diagnose import diagnosis_of, in_both_parts
from phinetune.errors import RunError
from phinetune.run_folder import RunFolder
from phinetune.sheet.findings import Pair


def _pair(question: str) -> Pair:
    return Pair(question, "Yes.", 1)


def test_held_out_questions_that_training_asks_too_are_counted():
    train = [_pair("Where is the harbour?"), _pair("Who keeps the lighthouse?")]
    held_out = [_pair("where is the harbour"), _pair("Where's the harbour, please?"), _pair("When does it rain?")]
    assert in_both_parts(train, held_out) == 2
    assert in_both_parts(train, held_out[2:]) == 0
    assert in_both_parts([], held_out) == 0


def test_training_tells_it_and_the_folder_tells_it_again(toy_run):
    found = {diagnosis.name: diagnosis for diagnosis in toy_run.diagnosis}
    assert {"too_few_pairs", "few_held_out"} <= set(found)
    assert not {"leak", "answers_cut", "validation_follows"} & set(found)  # 3 held-out pairs deserve no praise
    assert "27 pairs" in found["too_few_pairs"].sentence
    assert phinetune.diagnose(toy_run) == list(toy_run.diagnosis) == phinetune.diagnose(str(toy_run.folder.root))
    said = json.loads(json.dumps(toy_run.to_json()))["diagnosis"]
    assert [each["name"] for each in said] == list(found)
    assert set(said[0]) == {"name", "severity", "sentence", "number", "advice"}
    assert toy_run.diagnosis[0].sentence in (toy_run.folder.model / "README.md").read_text().replace("\\", "")


def test_how_answers_end_is_known_once_they_were_compared_and_forgotten_with_a_newer_model(toy_run, tmp_path):
    folder = RunFolder(tmp_path)
    folder.visuals.mkdir(parents=True)
    for name in ("metrics_csv", "metrics_json", "config_json"):
        getattr(folder, name).write_bytes(getattr(toy_run.folder, name).read_bytes())
    record = {"count": 20, "tuned": {"stopped_by_itself": 0.5}, "scores": {"f1": {"tuned": {"mean": 1}}}}
    folder.answers_json.write_text(json.dumps(record | {"pairs": [], "verdict": []}))
    found = {diagnosis.name: diagnosis for diagnosis in diagnosis_of(folder)}
    assert "10 of 20 answers" in found["does_not_stop"].sentence
    later = folder.answers_json.stat().st_mtime + 5
    os.utime(folder.metrics_json, (later, later))
    assert "does_not_stop" not in {diagnosis.name for diagnosis in diagnosis_of(folder)}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes with a name here")
@pytest.mark.parametrize("name", ["metrics_csv", "config_json", "findings_json"])
def test_a_pipe_among_the_records_is_not_waited_for(toy_run, tmp_path, name):
    shutil.copytree(toy_run.folder.root, tmp_path / "run")
    file = getattr(RunFolder(tmp_path / "run"), name)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(RunError, match="is no file"):
        phinetune.report(tmp_path / "run")
