"""What the model's rooms ask of a row; tokens/batch.py lays rows out, and the model knows nothing of sheets."""

from __future__ import annotations

from typing import Protocol, TypeVar

import torch

R = TypeVar("R", bound="Row")


class Row(Protocol):
    """Documents laid end to end.

    ids, positions: int64 [1, T], positions from 0 in every document. targets: int64 [A], the answer tokens.
    predictors: int64 [A], the place that predicts each target, the one before it. lengths: tokens of each document.
    """

    @property
    def ids(self) -> torch.Tensor: ...
    @property
    def positions(self) -> torch.Tensor: ...
    @property
    def targets(self) -> torch.Tensor: ...
    @property
    def predictors(self) -> torch.Tensor: ...
    @property
    def lengths(self) -> tuple[int, ...]: ...

    def to(self: R, device: torch.device) -> R: ...
