"""Which way rows go through a model, and what happens when the fast way cannot be trusted."""

from __future__ import annotations

import weakref

import pytest
import torch
import toys

from phinetune.errors import ModelError, SettingsError, TrainingError
from phinetune.model import lora, loss, rows
from phinetune.model.loss import answer_loss, loss_through_head
from phinetune.model.rows import FastRowLoss, fast_row_loss
from phinetune.settings import LoraSettings
from phinetune.tokens.encode import Encoder, Example
from phinetune.tokens.prompt import PromptTemplate
from phinetune.training import check
from phinetune.training.check import proven_row_loss


def _examples():
    pairs = [toys.Pair(q, a, i) for i, (q, a) in enumerate(toys.PAIRS)]
    return Encoder(toys.tokenizer(), PromptTemplate(), 128).examples(pairs)


def _adapted(base):
    return lora.attach(base, LoraSettings(r=4), "toy", seed=1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("make", [toys.phi, toys.llama])
def test_the_fast_way_is_taken_where_it_agrees(make, dtype):
    model = _adapted(make().to(dtype))
    with proven_row_loss(model, _examples()) as (row_loss, warning):
        assert isinstance(row_loss, FastRowLoss)
        assert warning is None
    assert model.training  # left as it was


def test_gradients_of_the_check_are_gone_when_the_run_begins(monkeypatch):
    real, gradients = check._pass, []

    def noted(*arguments):
        found = real(*arguments)
        gradients.append(weakref.ref(found.gradient))
        return found

    monkeypatch.setattr(check, "_pass", noted)
    with proven_row_loss(_adapted(toys.phi()), _examples()):
        assert len(gradients) >= 3
        assert all(gradient() is None for gradient in gradients)


def test_a_fast_way_that_gives_other_numbers_is_not_taken_and_the_person_is_told(monkeypatch):
    def wrong(model):
        right = fast_row_loss(model)
        return lambda *arguments: right(*arguments) * 1.1

    monkeypatch.setattr(check, "fast_row_loss", wrong)
    with proven_row_loss(_adapted(toys.phi()), _examples()) as (row_loss, warning):
        assert row_loss.func is loss_through_head
        assert warning.code == "slow_path"
        assert "the result is the same" in warning.message


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, loss):  # noqa: ARG004
        return loss.clone()

    @staticmethod
    def backward(ctx, gradient):  # noqa: ARG004
        return 2 * gradient


def test_a_fast_way_with_a_wrong_gradient_is_not_taken(monkeypatch):
    def wrong(model):
        right = fast_row_loss(model)
        return lambda *arguments: _WrongGradient.apply(right(*arguments))

    monkeypatch.setattr(check, "fast_row_loss", wrong)
    with proven_row_loss(_adapted(toys.phi()), _examples()) as (row_loss, warning):
        assert row_loss.func is loss_through_head
        assert warning.code == "slow_path"


def test_a_kernel_that_this_machine_does_not_have_is_no_obstacle(monkeypatch):
    def missing(*_):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(check, "fast_row_loss", lambda model: missing)
    with proven_row_loss(_adapted(toys.phi()), _examples()) as (row_loss, warning):
        assert row_loss.func is loss_through_head
        assert warning.code == "slow_path"


def _out_of_memory_beyond(tokens, monkeypatch):
    """The plain way, in a memory that holds pairs of so many tokens."""
    met, plain = [], check._each_alone

    def each_alone(model, examples):
        met.append([len(example.ids) for example in examples])
        if max(met[-1]) > tokens:
            raise torch.OutOfMemoryError
        return plain(model, examples)

    monkeypatch.setattr(check, "_each_alone", each_alone)
    return met


def test_long_pairs_are_looked_at_in_part_and_in_smaller_part_where_memory_runs_out(monkeypatch):
    met = _out_of_memory_beyond(100, monkeypatch)
    examples = [Example(tuple(range(1, n)), n - 3, 1) for n in (301, 401)]
    with proven_row_loss(_adapted(toys.phi()), examples) as (row_loss, warning):
        assert isinstance(row_loss, FastRowLoss)
        assert warning is None
    assert met == [[192, 192], [24, 24]]


def test_what_does_not_fit_even_then_is_said_with_what_it_needs(monkeypatch):
    _out_of_memory_beyond(5, monkeypatch)
    with (
        pytest.raises(TrainingError, match="does not fit in the memory .* needs about .* GB"),
        proven_row_loss(_adapted(toys.phi()), _examples()),
    ):
        pass


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_model_that_knows_the_sheet_by_heart_is_proven_all_the_same(dtype):
    base = toys.llama().to(dtype)
    torch.nn.init.zeros_(base.lm_head.weight)  # every answer at the same odds, and no gradient at all
    with proven_row_loss(_adapted(base), _examples()) as (row_loss, warning):
        assert isinstance(row_loss, FastRowLoss)
        assert warning is None


def test_pairs_beyond_the_window_of_a_model_are_refused():
    from transformers import MistralConfig, MistralForCausalLM

    config = MistralConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, sliding_window=8, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = _adapted(MistralForCausalLM(config))
    with pytest.raises(SettingsError, match="looks back no further than 8"), proven_row_loss(model, _examples()):
        pass


def test_other_architectures_go_the_plain_way_without_a_word():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=512, n_embd=64, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0)
    base = GPT2LMHeadModel(config).eval()
    with proven_row_loss(_adapted(base), _examples()) as (row_loss, warning):
        assert row_loss.func is loss_through_head
        assert warning is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_logits_that_are_bounded_behind_the_head_go_the_models_own_way(dtype):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    traits = {
        "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "attn_logit_softcapping": None,
    }  # fmt: skip
    for bound, way in ((None, loss_through_head), (30.0, answer_loss)):
        torch.manual_seed(0)
        base = Gemma2ForCausalLM(Gemma2Config(**traits, final_logit_softcapping=bound)).eval().to(dtype)
        with proven_row_loss(_adapted(base), _examples()) as (row_loss, warning):
            assert row_loss.func is way
            assert warning is None


def test_layers_that_give_something_else_than_hidden_states_go_the_models_own_way(monkeypatch):
    monkeypatch.setattr(loss, "_before_head", lambda *_: ().last_hidden_state)
    monkeypatch.setattr(check, "fast_row_loss", lambda model: None)
    with proven_row_loss(_adapted(toys.phi()), _examples()) as (row_loss, warning):
        assert row_loss.func is answer_loss
        assert warning is None


def test_where_the_way_through_the_head_fails_the_models_own_is_taken(monkeypatch):
    def missing(*_):
        raise RuntimeError("no kernel image is available for execution on the device")

    monkeypatch.setattr(rows, "loss_through_head", missing)
    base = toys.phi()
    monkeypatch.setattr(check, "fast_row_loss", lambda model: None)
    with proven_row_loss(_adapted(base), _examples()) as (row_loss, warning):
        assert row_loss.func is answer_loss
        assert warning is None


def test_a_model_without_usable_numbers_is_an_error():
    base = toys.phi()
    torch.nn.init.constant_(base.model.layers[0].mlp.fc1.weight, float("nan"))
    with pytest.raises(TrainingError, match="no usable numbers"), proven_row_loss(_adapted(base), _examples()):
        pass


def test_a_model_whose_pairs_see_their_neighbours_is_refused():
    from transformers import GPTNeoConfig, GPTNeoForCausalLM

    config = GPTNeoConfig(
        vocab_size=512, hidden_size=32, num_layers=2, attention_types=[[["global"], 2]], num_heads=2,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    with (
        pytest.raises(ModelError, match="see another"),
        proven_row_loss(_adapted(GPTNeoForCausalLM(config)), _examples()),
    ):
        pass


@pytest.mark.parametrize(("lengths", "times"), [((10, 192), 40), ((5, 60), 1), ((70, 192), 1), ((64, 65), 4)])
def test_a_gpu_is_proven_in_a_row_of_mostly_short_pairs_too(monkeypatch, lengths, times):
    pair = [Example(ids=tuple(range(1, length + 1)), prompt_length=3, row=2) for length in lengths]
    model = _adapted(toys.phi())
    assert check._until_mostly_short(model, pair) == 1
    monkeypatch.setattr(check, "can_record", lambda _model: True)
    assert check._until_mostly_short(model, pair) == times


def test_kernels_for_short_pairs_that_give_other_numbers_are_not_taken(monkeypatch):
    """Where the pair alone says nothing, because it takes other kernels."""
    model, examples = _adapted(toys.phi()), _examples()
    shortest, longest = (f(examples, key=lambda each: len(each.ids)) for f in (min, max))
    monkeypatch.setattr(check, "_until_mostly_short", lambda *_: 5)
    real = check._pass

    def wrong_in_short_rows(model, row_loss, row):
        found = real(model, row_loss, row)
        return check._Pass(1.3 * found.loss, found.gradient) if len(row) == 6 else found

    with proven_row_loss(model, examples) as (row_loss, warning):
        assert warning is None
        assert isinstance(row_loss, FastRowLoss)
    monkeypatch.setattr(check, "_pass", wrong_in_short_rows)
    with proven_row_loss(model, [shortest, longest]) as (_, warning):
        assert warning.code == "slow_path"
