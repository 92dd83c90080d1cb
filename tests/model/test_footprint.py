"""The count of what is kept against what autograd really keeps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import toys
from transformers import Qwen2Config, Qwen2ForCausalLM

from phinetune.model import lora
from phinetune.model.attend import attention_kind
from phinetune.model.find_shape import KNOWN
from phinetune.model.footprint import Computing, Row, check_footprint, footprint, kept_bytes, step_footprint
from phinetune.model.rows import fast_row_loss
from phinetune.model.shape import adapter_shape, read_shape
from phinetune.settings import LoraSettings
from phinetune.tokens.batch import lay_out
from phinetune.tokens.encode import Example

ROWS = [[(32, 16)] * 4, [(200, 50)] * 2, [(5, 2), (30, 20), (12, 1), (150, 140)]]


def _qwen2():
    traits = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 3}
    return Qwen2ForCausalLM(Qwen2Config(**traits, num_attention_heads=4, num_key_value_heads=2))


def _kept(model, row):
    """Bytes of the storages that autograd saves, the model's own weights aside."""
    fast_row_loss(model)(row)  # a GPU's kernels are tried on plain products before their first row
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    storages = {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that its address is not used again
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        fast_row_loss(model)(row)
    return sum(size for size, _ in storages.values())


@pytest.mark.parametrize("documents", ROWS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("make", [toys.phi, toys.llama, _qwen2])
def test_what_is_counted_is_what_autograd_keeps(make, dtype, documents):
    model = make()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    shape = read_shape(model.config.to_dict(), "toy")
    adapted = lora.attach(model.to(device, dtype).requires_grad_(False), LoraSettings(r=4), "toy", seed=0)
    adapted.train()
    examples = [Example(tuple(i % 400 for i in range(n)), n - a, 1) for n, a in documents]
    kept = _kept(adapted, lay_out(examples).to(device))
    row = Row(tuple(n for n, _ in documents), sum(a for _, a in documents))
    attention = attention_kind(device, dtype, shape.head_dim)
    computing = Computing(dtype.itemsize, on_gpu=device.type == "cuda", attention=attention, recompute=False)
    of_the_loss = row.answer_tokens * shape.hidden * dtype.itemsize  # its gradient, which the plan counts to the logits
    counted = kept_bytes(shape, adapter_shape(shape, 4, "all"), row, computing) + of_the_loss
    assert counted == pytest.approx(kept, rel=0.02)


def _phi2():
    shape = read_shape(KNOWN["microsoft/phi-2"], "Phi-2")
    return shape, adapter_shape(shape, 16, "all")


BF16 = Computing(2, on_gpu=False, attention="bands", recompute=False)
FP32 = Computing(4, on_gpu=False, attention="blocks", recompute=False)
FP32_AGAIN = replace(FP32, recompute=True)


def test_parts_of_phi2_that_arithmetic_alone_decides():
    step = step_footprint(*_phi2(), Row((32,) * 16, 256), BF16)
    assert step.weights == 2 * 2_779_683_840
    assert step.gradients == 4 * 23_592_960
    assert step.adapter == 2 * 4 * 23_592_960  # with the copy to go back to
    assert step.optimizer == 8 * 23_592_960
    assert sum(step.parts.values()) == step.total


def test_a_measured_peak_of_phi2_is_met():
    # 16 documents of 32 tokens, two steps, random weights in bf16: 8.41 GB at the peak (two AVX512 cores, torch 2.13)
    planned = footprint(*_phi2(), [Row((32,) * 16, 256)], Row((32,), 16), BF16)
    assert planned.total / 1e9 == pytest.approx(8.41, rel=0.10)


@pytest.mark.parametrize(
    ("documents", "length", "answer", "computing", "peak"),
    [
        (1, 8, 4, BF16, 0.99),
        (16, 32, 16, BF16, 1.28),
        (4, 512, 256, BF16, 2.20),
        (64, 32, 16, BF16, 2.16),
        (16, 128, 64, BF16, 2.21),
        (16, 32, 16, FP32, 1.94),
        (4, 512, 256, FP32, 4.19),
        (1, 512, 256, FP32, 2.07),
        (4, 512, 505, FP32_AGAIN, 2.23),
    ],
)
def test_measured_peaks_of_smollm2_are_met(documents, length, answer, computing, peak):
    shape = read_shape(KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"], "SmolLM2")
    rows = [Row((length,) * documents, answer * documents)]
    planned = footprint(shape, adapter_shape(shape, 16, "all"), rows, Row((length,), answer), computing)
    assert planned.total / 1e9 == pytest.approx(peak, rel=0.10)


def test_of_a_long_pair_the_check_looks_at_the_beginning():
    whole, beginning = (check_footprint(*_phi2(), Row((tokens,), tokens), BF16) for tokens in (1024, 192))
    assert whole == beginning


def test_rows_of_many_lengths_take_code_of_their_own_up_to_a_bound():
    # The handbook in rows of 8 pairs, 40 steps: 1.39 GB; of one length: 1.14
    shape = read_shape(KNOWN["HuggingFaceTB/SmolLM2-135M-Instruct"], "SmolLM2")
    scene = (shape, adapter_shape(shape, 16, "all"), [Row((30,) * 8, 130)], Row((42,), 20))
    one, few, many, more = (footprint(*scene, BF16, lengths).total for lengths in (1, 3, 40, 400))
    assert one < few < many == more
    assert many / 1e9 == pytest.approx(1.39, rel=0.10)
    assert footprint(*scene, FP32, 40).total == footprint(*scene, FP32, 1).total


def test_recomputing_keeps_little_and_never_helps_the_check():
    row, again = Row((512,) * 4, 1000), Computing(2, False, "bands", recompute=True)
    assert step_footprint(*_phi2(), row, again).activations < step_footprint(*_phi2(), row, BF16).activations / 8
    assert check_footprint(*_phi2(), row, again) == check_footprint(*_phi2(), row, BF16)


def test_one_long_pair_peaks_in_the_check_and_many_in_a_step():
    long = Row((512,), 400)
    assert footprint(*_phi2(), [long], long, BF16).moment == "check"
    assert footprint(*_phi2(), [Row((512,) * 8, 3200)], long, BF16).moment == "training step"


def test_flash_and_bands_keep_no_copies_in_fp32():
    row = Row((32,) * 16, 256)
    blocks, flash, bands = (
        kept_bytes(*_phi2(), row, Computing(2, on_gpu=False, attention=kind, recompute=False))
        for kind in ("blocks", "flash", "bands")
    )
    assert bands < blocks
    assert flash < bands  # the GPU's kernels compute gelu again


def test_logits_are_all_kept_only_where_something_stands_behind_the_head():
    config = KNOWN["Qwen/Qwen2.5-0.5B-Instruct"] | {"model_type": "newcomer"}
    row, computing = Row((500,) * 8, 3000), Computing(2, on_gpu=False, attention="blocks", recompute=False)

    def logits(**changes):
        shape = read_shape(config | changes, "newcomer")
        return step_footprint(shape, adapter_shape(shape, 16, "all"), row, computing).logits

    assert logits(final_logit_softcapping=30.0) == logits(logit_scale=0.0625) == 3000 * 151936 * 10
    assert logits() == logits(logit_scale=1) == ((1 << 24) + 3000 * 896) * 2
