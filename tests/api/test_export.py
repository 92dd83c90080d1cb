"""Merged folders and .gguf files say what the adapter says: in plain transformers, and in llama.cpp itself."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
import toys
from transformers import AutoModelForCausalLM, AutoTokenizer

import phinetune
from phinetune.api import export, read_back
from phinetune.api import merge as merging
from phinetune.artifacts.quantize import KINDS
from phinetune.errors import ModelError, RunError, SettingsError
from phinetune.recipe import read_recipe

_spec = importlib.util.spec_from_file_location(
    "gguf_fixtures", Path(__file__).parents[1] / "model" / "gguf_fixtures.py"
)
fixtures = importlib.util.module_from_spec(_spec)
sys.modules["gguf_fixtures"] = fixtures
_spec.loader.exec_module(fixtures)

QUESTIONS = [question for question, _ in toys.PAIRS]


@pytest.fixture(scope="module")
def llama_run(toy_sheet, tmp_path_factory):
    place = tmp_path_factory.mktemp("llama")
    base = toys.save(place / "base", toys.llama(hidden_size=128, num_attention_heads=4))
    return phinetune.train(
        toy_sheet, model=str(base), out=place / "run", epochs=20, lr=1e-2, lora_dropout=0.0, patience=0, dtype="fp32"
    )


@pytest.fixture(params=["phi", "llama"])
def run(request, toy_run, llama_run):
    return {"phi": toy_run, "llama": llama_run}[request.param]


def _adapter_logits(run, ids):
    with torch.no_grad():
        return phinetune.open_model(run, dtype="fp32").model(ids).logits


def test_a_merged_folder_is_an_ordinary_model(run, tmp_path):
    merged = phinetune.merge(run, tmp_path / "merged", dtype="fp32")
    model = AutoModelForCausalLM.from_pretrained(merged.path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(merged.path)
    ids = tokenizer(f"### Question: {QUESTIONS[0]}\n\n### Answer:", return_tensors="pt").input_ids
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, _adapter_logits(run, ids), rtol=1e-4, atol=1e-4)
    assert not list(merged.path.glob("adapter*"))
    config = json.loads((merged.path / "config.json").read_text())
    assert config["architectures"] == [type(model).__name__]  # other programs choose their code by it
    assert {"config.json", "generation_config.json", "model.safetensors", "README.md"} <= {
        file.name for file in merged.path.iterdir()
    }
    assert len({file.stat().st_mode for file in merged.path.iterdir()}) == 1  # the weights no less than the rest
    assert merged.loss == pytest.approx(merged.adapter_loss, abs=2e-2)


def test_large_models_are_written_in_shards(run, tmp_path, monkeypatch):
    from phinetune.artifacts import merge

    monkeypatch.setattr(merge, "_SHARD_BYTES", 100_000)
    seen = []
    merged = phinetune.merge(run, tmp_path / "m", dtype="bf16", on_progress=lambda *progress: seen.append(progress))
    shards = sorted(merged.path.glob("*.safetensors"))
    assert len(seen) > len(shards) > 1
    assert seen[-1][1] == seen[-1][2] > seen[0][1]
    assert json.loads((merged.path / "model.safetensors.index.json").read_text())["metadata"]["total_size"] > 0
    AutoModelForCausalLM.from_pretrained(merged.path)


def _answers_like_the_adapter(llama, tuned):
    for question in QUESTIONS:
        prompt = tuned.encoder.prompt_ids(question)
        assert llama.tokens(tuned.encoder.template.prompt(question)) == prompt
        with torch.no_grad():
            ids = torch.tensor([prompt])
            written = tuned.model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12,
                min_new_tokens=12, pad_token_id=0,
            )[0, len(prompt) :].tolist()  # fmt: skip
        ours = written[: [*written, 0].index(0)]
        assert ours
        assert llama.greedy(prompt, 12)[: len(ours)] == ours


def test_llama_cpp_answers_like_the_adapter(run, tmp_path):
    [written] = phinetune.export_gguf(run, tmp_path / "tuned.gguf", quantize=["f32"])
    _answers_like_the_adapter(fixtures.llama_cpp(written.path), phinetune.open_model(run, dtype="fp32"))


def test_the_adapter_alone_on_a_gguf_base_answers_like_the_adapter(run, tmp_path):
    tuned = phinetune.open_model(run, dtype="fp32")
    where = read_recipe(run.folder.model).base_model
    base = AutoModelForCausalLM.from_pretrained(where, dtype=torch.float32)
    file = tmp_path / "base.gguf"
    fixtures.write_gguf(file, base, toys.tokenizer())
    lora = phinetune.export_gguf_adapter(run, tmp_path / "lora.gguf", kind="f32")
    assert lora.stat().st_size < file.stat().st_size
    _answers_like_the_adapter(fixtures.llama_cpp(file, adapter=lora), tuned)
    question = tuned.encoder.prompt_ids(QUESTIONS[0])
    assert fixtures.llama_cpp(file).greedy(question, 12) != fixtures.llama_cpp(file, lora).greedy(question, 12)


def test_its_tokens_are_the_tokenizers(run, tmp_path):
    [written] = phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=["q8_0"])
    llama, tokenizer = fixtures.llama_cpp(written.path), toys.tokenizer()
    for text in fixtures.TEXTS:
        assert llama.tokens(text) == tokenizer(text).input_ids


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_packing_is_read_back_and_llama_cpp_loads_it(run, tmp_path, kind):
    [written] = phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=[kind.upper()])
    assert (written.kind, written.path) == (kind, tmp_path / "t.gguf")
    assert abs(written.loss - written.adapter_loss) < (0.05 if kind in ("f32", "f16", "bf16", "q8_0") else 3)
    assert fixtures.llama_cpp(written.path).tokens("Who?")


def test_several_packings_at_once_with_modelfile_and_page(run, tmp_path):
    written = phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=["q8_0", "q4_0"])
    assert [each.path.name for each in written] == ["t.q8_0.gguf", "t.q4_0.gguf"]
    assert written[0].megabytes > written[1].megabytes
    text = (tmp_path / "t.q8_0.gguf.Modelfile").read_text()
    assert "FROM ./t.q8_0.gguf" in text
    assert 'TEMPLATE """### Question: {{ .Prompt }}\n\n### Answer:"""' in text
    assert 'PARAMETER stop """### Question:"""' in text
    assert 'PARAMETER stop """<|endoftext|>"""' in text
    assert str(tmp_path) not in (tmp_path / "t.q8_0.gguf").read_bytes()[:20_000].decode("latin-1")
    assert str(run.folder.root.parent) not in (tmp_path / "t.q8_0.gguf").read_bytes()[:20_000].decode("latin-1")
    page = (tmp_path / "t.q8_0.gguf.txt").read_text()
    for program in ("llama.cpp", "Ollama", "LM Studio"):
        assert program in page


def test_what_a_template_has_behind_an_answer_ends_it_in_ollama_too(run, tmp_path):
    copy = shutil.copytree(run.folder.model, tmp_path / "model")
    recipe = json.loads((copy / "phinetune.json").read_text()) | {"template": "User: {question}\nBot: {answer}\n[end]"}
    (copy / "phinetune.json").write_text(json.dumps(recipe))
    phinetune.export_gguf(copy, tmp_path / "t.gguf", check=False)
    text = (tmp_path / "t.gguf.Modelfile").read_text()
    assert 'PARAMETER stop """\n[end]"""\nPARAMETER' in text
    assert 'PARAMETER stop """User:"""\n' in text


def test_a_form_that_says_something_else_is_removed_and_is_an_error(run, tmp_path, monkeypatch):
    losses = iter([0.5, 0.9] * 2)
    monkeypatch.setattr(read_back, "mean_loss", lambda *_: next(losses))
    with pytest.raises(ModelError, match=r"0\.900 instead of 0\.500. What was written is removed"):
        phinetune.merge(run, tmp_path / "merged")
    with pytest.raises(ModelError, match="does not say what the adapter says"):
        phinetune.export_gguf(run, tmp_path / "t.gguf")
    assert not list(tmp_path.iterdir())


def test_of_several_packings_none_is_left_when_one_fails(run, tmp_path, monkeypatch):
    losses = iter([0.5, 0.5, 0.9])
    monkeypatch.setattr(read_back, "mean_loss", lambda *_: next(losses))
    with pytest.raises(ModelError, match="in q8_0 does not say what the adapter says"):
        phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=["f16", "q8_0"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("broken", [KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("verb", [phinetune.export_gguf, phinetune.merge])
def test_what_ends_an_export_leaves_nothing_of_it(toy_run, tmp_path, monkeypatch, broken, verb):
    def fail(*_):
        raise broken

    for module in (export, merging):
        monkeypatch.setattr(module, "held_against", fail)
    with pytest.raises(broken):
        verb(toy_run, tmp_path / "t.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layers", [1, 3])
def test_an_adapter_of_a_model_with_more_or_fewer_layers_is_refused_and_nothing_written(toy_run, tmp_path, layers):
    other = str(toys.save(tmp_path / "other", toys.phi(num_hidden_layers=layers)))
    out = tmp_path / "out"
    exports = [
        lambda: phinetune.export_gguf(toy_run, out / "x.gguf", model=other, check=False),
        lambda: phinetune.export_gguf(toy_run, out / "x.gguf", model=other, quantize=["f16", "q8_0"]),
        lambda: phinetune.export_gguf_adapter(toy_run, out / "x.gguf", model=other),
        lambda: phinetune.merge(toy_run, out, model=other),
    ]
    for write in exports:
        with pytest.raises(ModelError, match=r"does not fit this base model: .*model\.layers\.\d"):
            write()
        assert not out.exists()


def test_a_link_out_of_the_model_folder_is_not_copied_into_a_merged_one(run, tmp_path):
    model = shutil.copytree(run.folder.model, tmp_path / "model")
    (tmp_path / "secret.txt").write_text("secret")
    (model / "notes.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(RunError, match=r"notes\.txt does not belong to this run: it is a link to"):
        phinetune.merge(model, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_bad_wishes_are_clear_errors_and_leave_nothing(run, tmp_path, monkeypatch):
    with pytest.raises(SettingsError, match="no packing called q3 ") as caught:
        phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=["q3"])
    assert "q8_0" in caught.value.hint
    with pytest.raises(SettingsError, match="no number format called int8"):
        phinetune.merge(run, tmp_path / "m", dtype="int8")
    with pytest.raises(RunError, match="no tuned model"):
        phinetune.merge(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(RunError, match="its disk has"):
        phinetune.merge(run, tmp_path / "m")
    with pytest.raises(RunError, match="its disk has"):
        phinetune.export_gguf(run, tmp_path / "t.gguf")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wish", ["q8_0, Q8_0", ["q8_0", "q8_0"], "q8_0"])
def test_packings_are_named_in_a_text_or_a_list_and_written_once(toy_run, tmp_path, wish):
    [written] = phinetune.export_gguf(toy_run, tmp_path / "t.gguf", quantize=wish, check=False)
    assert (written.kind, written.path.name) == ("q8_0", "t.gguf")


@pytest.mark.parametrize("wish", [[], "", ",", [" "]])
def test_no_packing_at_all_is_refused(toy_run, tmp_path, wish):
    with pytest.raises(SettingsError, match="No packing is named") as caught:
        phinetune.export_gguf(toy_run, tmp_path / "t.gguf", quantize=wish)
    assert "q8_0" in caught.value.hint


def test_a_gguf_file_is_no_run_to_export(tmp_path):
    (tmp_path / "t.gguf").touch()
    for verb in (phinetune.merge, phinetune.export_gguf, phinetune.export_gguf_adapter):
        with pytest.raises(RunError, match="a model packed as .gguf") as caught:
            verb(tmp_path / "t.gguf", tmp_path / "out")
        assert "Name the run" in caught.value.hint


def test_room_for_all_packings_is_seen_to_before_the_first_is_written(run, tmp_path, monkeypatch):
    [one] = phinetune.export_gguf(run, tmp_path / "one.gguf", quantize=["f32"], check=False)
    room = int(one.megabytes * 1e6) + (65 << 20)
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": room})())
    phinetune.export_gguf(run, tmp_path / "fits.gguf", quantize=["f32"], check=False)
    with pytest.raises(RunError, match="its disk has"):
        phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=["f32", "f16"])
    assert not list(tmp_path.glob("t.*"))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_merged_folder_keeps_the_number_format_of_its_base(toy_run, tmp_path, dtype):
    toys.save(tmp_path / "base", toys.phi().to(dtype))
    merged = phinetune.merge(toy_run, tmp_path / "merged", model=str(tmp_path / "base"))
    assert AutoModelForCausalLM.from_pretrained(merged.path).dtype == dtype
    assert merged.kind == {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}[dtype]


def test_an_adapter_alone_needs_no_weights_of_its_base(run, tmp_path):
    model, base = shutil.copytree(run.folder.model, tmp_path / "model"), tmp_path / "base"
    base.mkdir()
    where = Path(read_recipe(model).base_model)
    shutil.copy(where / "config.json", base)
    lora = phinetune.export_gguf_adapter(model, tmp_path / "a.gguf", model=str(base))
    assert lora.read_bytes() == phinetune.export_gguf_adapter(run, tmp_path / "b.gguf").read_bytes()
    ollama, page = (lora.with_name(f"a.gguf.{name}").read_text() for name in ("Modelfile", "txt"))
    assert "FROM ./BASE.gguf\nADAPTER ./a.gguf\n" in ollama
    assert "llama-completion -m BASE.gguf --lora a.gguf " in page
    with pytest.raises(SettingsError, match="cannot be written as q8_0"):
        phinetune.export_gguf_adapter(run, tmp_path / "c.gguf", kind="q8_0")
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"intermediate_size": 96}))
    with pytest.raises(ModelError, match=r"does not fit this base model: model\.layers\.0\.mlp\.\w+: .* a layer of"):
        phinetune.export_gguf_adapter(model, tmp_path / "c.gguf", model=str(base))
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patched, pytest.raises(RunError, match="its disk has"):
        patched.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
        phinetune.export_gguf_adapter(run, tmp_path / "c.gguf")
    assert not list(tmp_path.glob("c*"))


def test_nothing_that_is_there_is_overwritten(run, tmp_path):
    (tmp_path / "t.gguf").write_text("mine")
    with pytest.raises(RunError, match="is there already"):
        phinetune.export_gguf(run, tmp_path / "t.gguf")
    with pytest.raises(RunError, match="is there already"):
        phinetune.merge(run, tmp_path)
    assert (tmp_path / "t.gguf").read_text() == "mine"


def test_a_merged_folder_and_a_gguf_file_are_asked_like_the_run(run, tmp_path):
    tuned = phinetune.open_model(run, dtype="fp32")
    expected = tuned.answer_all(QUESTIONS, max_new_tokens=20)
    merged = phinetune.merge(run, tmp_path / "merged", dtype="fp32").path
    [file] = phinetune.export_gguf(run, tmp_path / "t.gguf", quantize=["f32"])
    for form in (merged, file.path):
        opened = phinetune.open_model(form, dtype="fp32")
        assert opened.answer_all(QUESTIONS, max_new_tokens=20) == expected
        assert opened.encoder.template == tuned.encoder.template
        assert not opened.has_base
        with pytest.raises(SettingsError, match="is merged"):
            opened.ask("Who?", base=True)
    [again] = phinetune.export_gguf(merged, tmp_path / "again.gguf", quantize=["f32"])
    assert again.loss == pytest.approx(again.adapter_loss, abs=1e-4)
    assert (file.measured_on, again.measured_on) == ("held-out pairs", "general text")
    with pytest.raises(RunError, match="merged model already"):
        phinetune.merge(merged, tmp_path / "twice")
    with pytest.raises(RunError, match="no adapter apart"):
        phinetune.export_gguf_adapter(merged, tmp_path / "lora.gguf")
