"""The same curves are the same pictures, which test_plots shows: they need no drawing again.

Drawing is 1.3 s of the 1.9 s of processor time that a run on the toy takes, and most runs in tests have the curves of
an earlier one: they repeat it, go on with it, or break off where another did.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np

from phinetune.api import outputs
from phinetune.artifacts.curves import Curves
from phinetune.artifacts.metrics import read_metrics
from phinetune.artifacts.plots import _kept_step
from phinetune.run_folder import RunFolder, write_bytes


class Pictures:
    """In the place of `plots.draw_run`, which it calls for what is new: reads and writes the same in the same order."""

    def __init__(self) -> None:
        self._draw, self._known = outputs.draw_run, {}

    def __call__(self, folder: RunFolder, title: str = "") -> tuple[Path, Path]:
        places = folder.curves_png, folder.comparison_png
        if (pictures := self._known.get(_key(folder, title))) is None:
            self._draw(folder, title)
            self._remember(folder, title)
        else:
            for place, picture in zip(places, pictures, strict=True):
                write_bytes(place, picture)
        return places

    def remember(self, root: Path) -> None:
        """The pictures of a run that another process made."""
        folder = RunFolder(root)
        config = json.loads(folder.config_json.read_text(encoding="utf-8"))
        self._remember(folder, f"{config['settings']['model']} on {config['data_file']['name']}")

    def _remember(self, folder: RunFolder, title: str) -> None:
        places = folder.curves_png, folder.comparison_png
        self._known[_key(folder, title)] = [place.read_bytes() for place in places]


def _key(folder: RunFolder, title: str) -> str:
    """Everything that is drawn."""
    curves = Curves.of(read_metrics(folder.metrics_csv))
    lines = [line.tolist() if isinstance(line, np.ndarray) else line for line in astuple(curves)]
    return repr((lines, _kept_step(folder), title))


def drawn_once() -> Pictures:
    """From here on, this process and those that it forks draw no curves again that they know."""
    outputs.draw_run = Pictures()
    return outputs.draw_run
