"""phinetune explain"""

from __future__ import annotations

from dataclasses import asdict

import typer

import phinetune
from phinetune.cli.explain_page import show_list, show_pages
from phinetune.cli.options import AS_JSON
from phinetune.cli.render import print_json


def command(
    setting: list[str] | None = typer.Argument(
        None, help="A setting, also in part or by another name: lr, lora.r, dropout, early stopping. All when left out."
    ),
    as_json: bool = AS_JSON,
) -> None:
    """Explain a setting: what it does, its default and range, what raising and lowering it does, when to touch it.

    Example: phinetune explain lr
    """
    pages = phinetune.explain(" ".join(setting or ()))
    if as_json:
        print_json([asdict(page) for page in pages])
    elif setting:
        show_pages(pages)
    else:
        show_list(pages)
