"""Every form of a tuned model, held against its adapter."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import toys
import xlsxwriter
from safetensors.torch import load_file, save_file

import phinetune
from phinetune.api import verify as verifying
from phinetune.cli import main
from phinetune.errors import PhinetuneError, RunError, SettingsError
from phinetune.sheet.kept import kept_pairs

_spec = importlib.util.spec_from_file_location(
    "gguf_fixtures", Path(__file__).parents[1] / "model" / "gguf_fixtures.py"
)
fixtures = importlib.util.module_from_spec(_spec)
sys.modules["gguf_fixtures"] = fixtures
_spec.loader.exec_module(fixtures)


def test_merged_and_packed_forms_say_what_the_adapter_says(toy_run, toy_sheet, tmp_path):
    merged = phinetune.merge(toy_run, tmp_path / "merged").path
    [f16, q4] = phinetune.export_gguf(toy_run, tmp_path / "t.gguf", quantize=["f16", "q4_0"])
    forms = phinetune.verify(toy_run, [merged, f16.path, q4.path], sheet=toy_sheet, limit=6)
    by_llama_cpp = ["llama.cpp"] if find_spec("xllamacpp") else []
    assert [form.by for form in forms] == ["phinetune", "phinetune", *(["phinetune", *by_llama_cpp] * 2)]
    adapter = forms[0]
    assert (adapter.same, adapter.asked) == (6, 6)
    assert adapter.kept is None
    for form in forms[1:3]:
        assert form.kept, form.verdict
        assert form.same == 6
        assert form.loss == pytest.approx(adapter.loss, abs=0.03)
    assert all(form.same == 6 for form in forms if form.name == f16.path.name)
    packed = next(form for form in forms if form.name == q4.path.name)
    assert packed.loss > adapter.loss
    assert all(form.kept for form in forms if form.name == f16.path.name)
    assert (packed.kept, packed.verdict) == (None, "nothing is promised")


def test_without_a_sheet_the_held_out_pairs_are_asked(toy_run):
    [adapter] = phinetune.verify(toy_run, limit=100)
    held_out = kept_pairs(toy_run.folder.pairs).validation
    assert adapter.asked == len(held_out)
    assert adapter.loss == pytest.approx(toy_run.eval_loss, rel=1e-3)


def test_another_model_is_told_apart(toy_run, tmp_path):
    [file] = phinetune.export_gguf(toy_run, tmp_path / "t.gguf", quantize=["q8_0"])
    other = phinetune.train(
        toys.write_sheet(tmp_path / "other.xlsx", [(q, "Nothing of the kind.") for q, _ in toys.PAIRS * 4]),
        model=str(toys.save(tmp_path / "base")), out=tmp_path / "other", epochs=20, lr=1e-2, patience=0,
    )  # fmt: skip
    forms = phinetune.verify(other, [file.path])
    assert forms[0].same == forms[0].asked
    assert all(form.same < form.asked / 2 for form in forms[1:])
    assert forms[1].loss > forms[0].loss + 0.5
    assert forms[1].kept is False
    assert all(form.kept is None for form in forms[2:])  # llama.cpp's answers alone: only the loss of q8_0 is promised


def test_a_broken_promise_is_said_and_ends_with_1(toy_run, tmp_path, capsys):
    [foreign] = phinetune.export_gguf(toy_run, tmp_path / "t.gguf", quantize=["f16"])
    other = shutil.copytree(toy_run.folder.model, tmp_path / "other")
    weights = load_file(other / "adapter_model.safetensors")
    save_file({name: 0.5 * weight for name, weight in weights.items()}, other / "adapter_model.safetensors")
    merged = phinetune.merge(other, tmp_path / "merged").path
    for flags in ((), ("--json",)):
        with pytest.raises(SystemExit) as done:
            main(["verify", str(toy_run.folder.root), str(foreign.path), str(merged), "--limit", "6", *flags])
        assert done.value.code == 1
        told = capsys.readouterr()
        assert "Not as close to the adapter as promised: merged." in told.err
        assert "Traceback" not in told.err
        assert "phinetune merge" in told.err
    forms = json.loads(told.out)
    assert [form["kept"] for form in forms] == [None, *([True] * (len(forms) - 2)), False]
    assert "its loss is" in forms[-1]["verdict"]


def test_the_command_prints_a_table_or_json(toy_run, toy_sheet, capsys):
    for flags in ((), ("--json",)):
        with pytest.raises(SystemExit) as done:
            main(["verify", str(toy_run.folder.root), "--sheet", str(toy_sheet), "--limit", "3", *flags])
        assert not done.value.code
    table, _, told = capsys.readouterr().out.partition("[")
    assert "adapter" in table
    assert "3 of 3" in table
    assert "as close as promised" in table
    assert json.loads("[" + told)[0]["same"] == 3


def test_the_questions_are_of_the_sheet_and_columns_that_are_named(toy_run, tmp_path):
    with xlsxwriter.Workbook(tmp_path / "test.xlsx") as book:
        for name, pairs in (("Old", toys.PAIRS[:1]), ("New", toys.PAIRS[:3])):
            page = book.add_worksheet(name)
            for row, pair in enumerate([("Code", "C", "E"), *(("kept", *pair) for pair in pairs)]):
                page.write_row(row, 0, pair)
    place = {"question": "C", "answer": "E", "sheet_name": "New"}
    [adapter] = phinetune.verify(toy_run, sheet=tmp_path / "test.xlsx", **place)
    assert adapter.asked == 3
    with pytest.raises(SettingsError, match="no file that has it"):
        phinetune.verify(toy_run, sheet_name="New")


def test_a_missing_file_is_a_clear_error(toy_run, tmp_path):
    with pytest.raises(RunError, match="no file or folder") as missing:
        phinetune.verify(toy_run, [tmp_path / "none.gguf"])
    assert "phinetune gguf" in missing.value.hint
    (tmp_path / "my-model.q4_0.gguf").touch()
    with pytest.raises(RunError) as missing:
        phinetune.verify(toy_run, [tmp_path / "my-model.q8_0.gguf"])
    assert missing.value.hint == "Did you mean my-model.q4_0.gguf?"


def test_an_adapter_in_gguf_form_is_tried_on_its_gguf_base(toy_sheet, tmp_path):
    pytest.importorskip("xllamacpp")
    base = tmp_path / "base.gguf"
    fixtures.write_gguf(base, toys.llama(hidden_size=128, num_attention_heads=4), toys.tokenizer())
    run = phinetune.train(
        toy_sheet, model=str(base), out=tmp_path / "run", epochs=20, lr=1e-2, lora_dropout=0.0, patience=0, dtype="fp32"
    )
    lora = phinetune.export_gguf_adapter(run, tmp_path / "lora.gguf", kind="f32")
    [_, form] = phinetune.verify(run, [lora], sheet=toy_sheet, limit=6)
    assert (form.name, form.by, form.loss) == ("lora.gguf", "llama.cpp", None)
    assert form.same == form.asked == 6
    assert (form.kept, form.verdict) == (True, "6 of 6 answers are the same")
    [_, again] = phinetune.verify(run, [lora], sheet=toy_sheet, limit=6, base_file=base)
    assert again == form


def _refusals(toy_run, tmp_path):
    """Files that cannot be held against the adapter, and what is said of each."""
    (tmp_path / "text.gguf").write_text("hello")
    (tmp_path / "empty").mkdir()
    bare = toys.save(tmp_path / "bare")
    return {
        tmp_path / "text.gguf": "is not a GGUF file",
        tmp_path / "empty": "holds no merged model",
        bare: "holds no merged model",
        toy_run.folder.root: "is a run and not a merged folder",
        toy_run.folder.model: "is a run and not a merged folder",
    }


def test_every_file_is_looked_at_before_the_model_is_loaded(toy_run, tmp_path, monkeypatch):
    lora = phinetune.export_gguf_adapter(toy_run, tmp_path / "lora.gguf")
    merged = phinetune.merge(toy_run, tmp_path / "merged").path
    monkeypatch.setattr(verifying, "open_exactly", lambda *_: pytest.fail("the model was loaded"))
    for path, said in _refusals(toy_run, tmp_path).items():
        with pytest.raises(PhinetuneError, match=said):
            phinetune.verify(toy_run, [merged, path])
    for base, said in ((tmp_path / "none.gguf", "no file or folder"), (merged, "not a .gguf file"), (lora, "alone")):
        with pytest.raises(RunError, match=said):
            phinetune.verify(toy_run, [merged, lora], base_file=base)
    with pytest.raises(RunError, match="not a .gguf file here") as caught:
        phinetune.verify(toy_run, [lora], model="nobody/knows-it")  # which nothing is fetched for
    assert "--base-file" in caught.value.hint


def test_an_adapter_in_gguf_form_whose_base_is_a_folder_asks_for_the_file(toy_run, tmp_path):
    lora = phinetune.export_gguf_adapter(toy_run, tmp_path / "lora.gguf")
    with pytest.raises(RunError, match="an adapter alone") as caught:
        phinetune.verify(toy_run, [lora])
    assert "--base-file" in caught.value.hint
