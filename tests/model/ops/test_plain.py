"""The plain operations that have no counterpart in torch."""

from __future__ import annotations

import torch

from phinetune.model.ops.plain import PLAIN


def test_rotation_turns_halves_of_the_first_numbers_and_turns_them_back():
    generator = torch.Generator().manual_seed(0)
    heads = torch.randn(5, 3, 8, generator=generator)
    angles = torch.randn(5, 2, generator=generator)
    cos, sin = angles.cos(), angles.sin()
    turned = PLAIN.rotate(heads, cos, sin)
    first, second, rest = heads[..., :2], heads[..., 2:4], heads[..., 4:]
    c, s = cos[:, None], sin[:, None]
    torch.testing.assert_close(turned, torch.cat([first * c - second * s, second * c + first * s, rest], dim=-1))
    torch.testing.assert_close(PLAIN.rotate(turned, cos, sin, back=True), heads)
