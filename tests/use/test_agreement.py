"""What is promised of each form, and what is only shown."""

from __future__ import annotations

import math

import pytest
import torch

from phinetune.use.agreement import Answers, Verdict, judge


def kept(kind, loss, adapter_loss=0.5, answers=None, measured_in=torch.float32, tokens=500):
    return judge(kind, loss, adapter_loss, measured_in, tokens, answers).kept


@pytest.mark.parametrize("kind", ["fp32", "f32", "bf16", "fp16", "f16", "q8_0"])
def test_a_loss_beyond_rounding_breaks_the_promise_in_either_direction(kind):
    rounding = {"fp32": 0.001, "f32": 0.001, "fp16": 0.002, "f16": 0.002, "bf16": 0.005, "q8_0": 0.005}[kind]
    for sign in (-1, 1):
        assert kept(kind, 0.5 + sign * 0.9 * rounding)
        assert kept(kind, 0.5 + sign * 1.1 * rounding) is False
    assert kept(kind, math.nan) is False


def test_q8_0_may_lose_one_percent_and_never_less_than_rounding():
    assert kept("q8_0", 3.029, adapter_loss=3.0)
    assert kept("q8_0", 3.031, adapter_loss=3.0) is False
    assert kept("q8_0", 0.0249, adapter_loss=0.02)
    assert kept("q8_0", 0.0251, adapter_loss=0.02) is False


def test_rounding_moves_the_loss_of_few_tokens_more():
    assert kept("bf16", 0.512, tokens=57)
    assert kept("bf16", 0.512, tokens=599) is False
    assert kept("bf16", 0.53, tokens=57) is False
    assert kept("q8_0", 3.04, adapter_loss=3.0, tokens=57) is False  # a share is one of few tokens too


def test_the_number_format_of_the_measurement_rounds_too():
    assert kept("fp32", 0.51) is False
    assert kept("fp32", 0.51, measured_in=torch.bfloat16)
    assert kept("fp32", 0.512, measured_in=torch.bfloat16) is False
    assert kept("q8_0", 3.039, adapter_loss=3.0, measured_in=torch.bfloat16)
    assert kept("q8_0", 3.041, adapter_loss=3.0, measured_in=torch.bfloat16) is False


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16"])
@pytest.mark.parametrize(
    ("same", "asked", "expected"),
    [
        (100, 100, True), (95, 100, True), (94, 100, False), (19, 20, True), (18, 20, False), (18, 19, None),
        (17, 19, False), (5, 6, None), (4, 6, False), (0, 1, None), (1, 1, True),
    ],
)  # fmt: skip
def test_nineteen_answers_of_twenty_are_the_adapters(kind, same, asked, expected):
    assert kept(kind, 0.5, answers=Answers(same, asked)) is expected
    assert kept(kind, None, answers=Answers(same, asked)) is expected  # as llama.cpp tells no loss


def test_the_same_answers_do_not_excuse_another_loss():
    assert kept("f16", 0.6, answers=Answers(20, 20)) is False


def test_of_other_packings_nothing_is_promised_and_of_q8_0_no_answers():
    assert judge("q4_0", 9.0, 0.5, torch.float32, 500, Answers(0, 20)) == Verdict(None, "nothing is promised")
    assert kept("q8_0", 0.5, answers=Answers(0, 20))
    assert judge("q8_0", None, 0.5, torch.float32, 500, Answers(0, 20)) == Verdict(
        None, "of q8_0 only the loss is promised"
    )


def test_the_reason_says_what_was_found():
    assert judge("f16", 0.5, 0.5, torch.float32, 500, Answers(19, 20)).reason == (
        "its loss is within 0.002 and 19 of 20 answers are the same"
    )
    assert judge("f16", 0.5, 0.5, torch.float32, 500, Answers(4, 8)).reason == "4 of 8 answers differ, where none may"
    assert judge("q8_0", 0.7, 0.5, torch.float32, 500).reason == "its loss is +0.200 off, where 0.005 is rounding"
