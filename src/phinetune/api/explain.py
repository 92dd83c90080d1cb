"""`explain()`: what a setting does, and when to touch it."""

from __future__ import annotations

from phinetune.settings.explain import Page, find, pages


def explain(setting: str = "") -> list[Page]:
    """The pages on a setting, by its dotted, short or partial name; on all of them when left out.

    Raises SettingsError, with the nearest names, when there is none of that name.
    """
    return find(setting) if setting else pages()
