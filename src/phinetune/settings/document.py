"""Every setting as one Markdown page: docs/settings.md.

python -m phinetune.settings.document > docs/settings.md
"""

from __future__ import annotations

from itertools import groupby

from phinetune.settings.explain import Page, pages

_HEAD = """\
# Settings

Every setting, with what it does. `phinetune explain NAME` shows the same in the terminal.

A setting is changed with its flag, with `--set NAME=VALUE`, or in a YAML file given with `--config`; the later one of
these wins: defaults, what suits the base model, `--preset`, `--config`, flags, `--set`.
"""


def document() -> str:
    """The page, made from the declarations."""
    parts = [_HEAD]
    for group, settings in groupby(pages(), key=lambda page: page.group):
        parts.append(f"## {group}\n")
        parts += [_section(page) for page in settings]
    return "\n".join(parts)


def _section(page: Page) -> str:
    more, less = ("Higher", "Lower") if page.is_amount else ("Changed", "Left as it is")
    lines = [
        f"default: `{page.default}`" if page.default != "left out" else "default: left out",
        f"takes: {page.allowed}",
        *([f"flag: `{page.flag}`"] if page.flag else []),
        *([f"also found as: {', '.join(page.also)}"] if page.also else []),
        *(f"with `{by}`: `{value}`" for by, value in page.presets.items()),
    ]
    items = "\n".join(f"- {line}" for line in lines)
    told = "\n".join(
        f"- **{title}:** {text}"
        for title, text in ((more, page.more), (less, page.less), ("When to touch it", page.when))
    )
    return f"### {page.name}\n\n{page.summary}\n\n{items}\n\n{told}\n"


if __name__ == "__main__":
    print(document(), end="")
