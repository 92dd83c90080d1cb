"""Files made to do damage, each by a name: bombs, cycles, lies about size, place and kind."""

from __future__ import annotations

from _crafted_texts import TEXTS
from _crafted_workbooks import WORKBOOKS

GALLERY = WORKBOOKS | TEXTS
