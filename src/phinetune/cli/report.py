"""phinetune report"""

from __future__ import annotations

import typer

import phinetune
from phinetune.cli.options import AS_JSON, OPEN
from phinetune.cli.render import print_json, print_line
from phinetune.cli.terminal import open_page


def command(
    run: str = typer.Argument(help="Folder that `phinetune train` wrote to, such as . for this one."),
    open_it: bool = OPEN,
    as_json: bool = AS_JSON,
) -> None:
    """Make the page that explains a run: one HTML file with everything in it, to read, print or pass on.

    Example: phinetune report . --open
    """
    page = phinetune.report(run)
    if as_json:
        print_json({"report": str(page)})
    else:
        print_line(f"The report is {page}. It needs no network: open it in any browser.")
    if open_it:
        open_page(page)
