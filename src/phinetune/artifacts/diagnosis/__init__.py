"""A run's figures -> what they mean, in plain words: how it went, the number behind it, what to change.

Thresholds stand beside their rules, with the reason for each.
"""

from __future__ import annotations

from phinetune.artifacts.diagnosis.diagnose import RULES, diagnose, diagnose_folder
from phinetune.artifacts.diagnosis.evidence import Diagnosis, Facts, Severity

__all__ = ["RULES", "Diagnosis", "Facts", "Severity", "diagnose", "diagnose_folder"]
