from __future__ import annotations

import subprocess
import sys

import pytest
import toys

import phinetune
from phinetune.cli.plan_page import show_plan
from phinetune.errors import ModelError, SheetError
from phinetune.model import lora
from phinetune.settings import LoraSettings


def test_a_plan_tells_what_the_run_then_does(toy_base, toy_sheet, tmp_path):
    options = {"model": str(toy_base), "epochs": 2, "batch_size": 2, "grad_accum": 2, "patience": 0}
    plan = phinetune.plan(toy_sheet, **options)
    run = phinetune.train(toy_sheet, out=tmp_path / "run", **options)
    assert plan.steps == run.steps
    assert plan.adapter_parameters == run.trainable_parameters
    assert plan.parameters == toys.phi().num_parameters() == sum(plan.modules.values())
    assert plan.tokens_are_exact
    assert plan.fits
    assert plan.disk["download"] == 0
    checkpoints = sum(f.stat().st_size for f in (tmp_path / "run" / "checkpoints").rglob("*") if f.is_file())
    assert checkpoints <= 1.2 * plan.disk["checkpoints"] + 500_000


def test_tokens_are_the_tokenizers_and_without_one_an_estimate(toy_base, toy_sheet, tmp_path):
    exact = phinetune.plan(toy_sheet, model=str(toy_base))
    (tmp_path / "config.json").write_text((toy_base / "config.json").read_text())
    estimated = phinetune.plan(toy_sheet, model=str(tmp_path))
    assert (exact.tokens_are_exact, estimated.tokens_are_exact) == (True, False)
    table = phinetune.check(toy_sheet)
    from transformers import AutoTokenizer

    from phinetune.tokens.encode import Encoder
    from phinetune.tokens.prompt import PromptTemplate

    examples = Encoder(AutoTokenizer.from_pretrained(toy_base), PromptTemplate(), 512).examples(table.pairs)
    assert exact.longest_pair_tokens == max(len(example.ids) for example in examples)


def test_phi2_on_a_t4_without_any_file_of_it(toy_sheet):
    plan = phinetune.plan(toy_sheet, model="microsoft/phi-2", device="t4")
    assert plan.parameters == 2_779_683_840
    assert plan.adapter_parameters == 23_592_960
    assert plan.dtype == "fp16"
    assert plan.fits
    assert plan.memory_total == sum(plan.memory.values())
    assert not plan.tokens_are_exact or plan.disk["download"] in (0, 2 * 2_779_683_840)


def test_what_does_not_fit_is_said(toy_sheet):
    plan = phinetune.plan(toy_sheet, model="mistralai/Mistral-7B-v0.1", device="t4")
    assert not plan.fits
    assert plan.advice[0].setting == "model"


def test_longer_rows_need_more_memory_and_time(toy_sheet, tmp_path):
    long = toys.write_sheet(tmp_path / "long.xlsx", [(f"Q {i}?", "word " * 400 + str(i)) for i in range(30)])
    short, longer = (phinetune.plan(sheet, model="microsoft/phi-2", device="t4") for sheet in (toy_sheet, long))
    assert longer.memory["activations"] > 3 * short.memory["activations"]
    assert longer.time.training > 3 * short.time.training
    cut = phinetune.plan(long, model="microsoft/phi-2", device="t4", max_length=64)
    assert cut.answers_cut == 30
    assert cut.memory_total < longer.memory_total


def test_a_question_without_room_for_an_answer_is_told_where_it_cannot_be_counted(toy_sheet, tmp_path, capsys):
    pairs = [(f"Q {i}?", f"answer {i}") for i in range(30)] + [("word " * 900 + "?", "yes")]
    sheet = toys.write_sheet(tmp_path / "long.xlsx", pairs)
    plan = phinetune.plan(sheet, model="Qwen/Qwen2.5-0.5B-Instruct", device="h100")
    assert not plan.tokens_are_exact
    assert (plan.questions_too_long, plan.answers_cut) == (1, 0)
    [advice] = [advice for advice in plan.advice if advice.setting == "max_length"]
    assert "leave no room for an answer: training refuses the sheet" in advice.reason
    show_plan(plan)
    assert "But training refuses the sheet" in capsys.readouterr().out
    assert phinetune.plan(toy_sheet, model="Qwen/Qwen2.5-0.5B-Instruct", device="h100").questions_too_long == 0


def test_errors_name_what_is_at_fault(toy_sheet, toy_base, tmp_path):
    with pytest.raises(ModelError, match="somebody/unknown"):
        phinetune.plan(toy_sheet, model="somebody/unknown")
    with pytest.raises(SheetError):
        phinetune.plan(tmp_path / "missing.xlsx", model=str(toy_base))


def test_no_torch_is_needed(toy_base, toy_sheet):
    code = (
        "import sys, phinetune\n"
        f"phinetune.plan({str(toy_sheet)!r}, model={str(toy_base)!r}, device='t4')\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_measured_speed_takes_the_tables_place(toy_base, toy_sheet):
    speed = phinetune.measure_speed(toy_sheet, model=str(toy_base), steps=2)
    assert speed > 0
    plan = phinetune.plan(toy_sheet, model=str(toy_base), measured_tokens_per_s=speed)
    assert plan.time.tokens_per_s == pytest.approx(speed)
    with pytest.raises(phinetune.PhinetuneError, match="cannot do so on a t4"):
        phinetune.measure_speed(toy_sheet, model=str(toy_base), device="t4")


def test_the_adapter_settings_count(toy_base, toy_sheet):
    plan = phinetune.plan(toy_sheet, model=str(toy_base), lora_r=4, target_modules="attention")
    model = lora.attach(toys.phi(), LoraSettings(r=4, target_modules="attention"), "toy", seed=0)
    assert plan.adapter_parameters == lora.count_parameters(model)[0]


def test_the_device_of_the_settings_is_planned_for(toy_base, toy_sheet):
    assert phinetune.plan(toy_sheet, model=str(toy_base), **{"train.device": "cpu"}).device.startswith("CPU")
    if not toys.torch.backends.mps.is_available():
        with pytest.raises(phinetune.PhinetuneError, match="mps"):
            phinetune.plan(toy_sheet, model=str(toy_base), **{"train.device": "mps"})
