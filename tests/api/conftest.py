"""A run that nothing happened to, for those that something happens to."""

from __future__ import annotations

import pytest
from whole_runs import train_by_fours, weights


@pytest.fixture(scope="session")
def whole(toy_base, toy_sheet, tmp_path_factory) -> bytes:
    """The adapter of a whole run by fours."""
    root = tmp_path_factory.mktemp("whole")
    train_by_fours(toy_sheet, toy_base, root)
    return weights(root)
