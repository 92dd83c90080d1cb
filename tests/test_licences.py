"""What phinetune stands on may be used by anybody, and docs/licences.md says so."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tools"))

import licences  # noqa: E402


def test_every_pinned_package_is_allowed_and_listed():
    assert len(licences.rows()) > 80
    assert licences.problems() == []


def test_what_binds_others_is_not_allowed():
    assert not any(map(licences.is_allowed, ("GPL-3.0-only", "AGPL-3.0", "?", "MIT AND GPL-2.0", "LGPL-3.0-or-later")))
    assert all(map(licences.is_allowed, ("MIT", "Apache-2.0 OR GPL-2.0", "(MIT AND BSD-3-Clause) OR GPL-3.0")))


def test_transformers_is_never_one_that_ran_code_from_checkpoints():
    """Before 4.48 several of its loaders unpickled what they read (CVE-2024-11392, -11393, -11394)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    [lowest] = [match[1] for word in project["dependencies"] if (match := re.match(r"transformers>=([\d.]+)", word))]
    pinned = licences.pinned()["transformers"]
    assert all(tuple(map(int, version.split(".")[:2])) >= (4, 48) for version in (lowest, pinned))
