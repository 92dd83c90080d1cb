"""The licences of everything that constraints.txt pins and that is installed here: docs/licences.md.

python tools/licences.py           write the page
python tools/licences.py --check   say what is not allowed or not current, and exit 1 if anything is
"""

from __future__ import annotations

import argparse
import re
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "licences.md"

# What a package may be under to be used beside a program of any licence. MPL binds the changed files alone.
ALLOWED = {
    "Apache-2.0", "MIT", "MIT-0", "MIT-CMU", "BSD-2-Clause", "BSD-3-Clause", "ISC", "PSF-2.0", "Python-2.0", "0BSD",
    "MPL-2.0", "Unlicense", "CC0-1.0", "Zlib", "HPND", "BSL-1.0", "CNRI-Python",
    "Apache-2.0 WITH LLVM-exception",
}  # fmt: skip
# Where the metadata says nothing that a program understands, what the project's own licence file says.
KNOWN: dict[str, str] = {"atheris": "Apache-2.0"}
_NAMES = (
    (r"apache", "Apache-2.0"),
    (r"mozilla|mpl", "MPL-2.0"),
    (r"hpnd|historical permission", "HPND"),
    (r"mit-cmu", "MIT-CMU"),
    (r"\bmit\b", "MIT"),
    (r"bsd.?3|3-clause|new bsd|modified bsd", "BSD-3-Clause"),
    (r"bsd.?2|2-clause|simplified bsd", "BSD-2-Clause"),
    (r"\bbsd\b", "BSD-3-Clause"),
    (r"\bisc\b", "ISC"),
    (r"python software foundation|psf", "PSF-2.0"),
)


def pinned() -> dict[str, str]:
    """Name and version of every pin."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = (line.partition("#")[0].strip().partition("==") for line in lines)
    return {name: version for name, equals, version in pins if equals}


def licence_of(package: str) -> str | None:
    """The licence as an SPDX expression; None where the package is not installed, "?" where it does not say."""
    try:
        about = distribution(package).metadata
    except PackageNotFoundError:
        return None
    if package in KNOWN:
        return KNOWN[package]
    if expression := about.get("License-Expression"):
        return str(expression)
    said = [name.rpartition(" :: ")[2] for name in about.get_all("Classifier", []) if name.startswith("License ::")]
    said += [str(about.get("License", "")).strip().partition("\n")[0]]
    for text in filter(None, said):
        if text in ALLOWED:
            return text
        for pattern, name in _NAMES:
            if re.search(pattern, text, re.IGNORECASE):
                return name
    return "?"


def is_allowed(licence: str) -> bool:
    """Whether one of the alternatives of an SPDX expression is allowed in all of its parts."""
    plain = licence.replace("(", " ").replace(")", " ")
    return any(
        all(part.strip() in ALLOWED for part in re.split(r"\s+AND\s+", choice))
        for choice in re.split(r"\s+OR\s+", plain)
    )


def rows() -> list[tuple[str, str]]:
    return [(name, licence) for name in sorted(pinned(), key=str.lower) if (licence := licence_of(name)) is not None]


def page() -> str:
    lines = [
        "# Licences of what phinetune is built and tested with",
        "",
        "Every package that `constraints.txt` pins, with the licence that it declares, as `tools/licences.py` read it",
        "from the installed packages, those of the benchmarks and the torture included. All may be used, changed and",
        "sold; none asks the same of a program beside it.",
        "",
        "| package | licence |",
        "|---|---|",
        *(f"| {name} | {licence} |" for name, licence in rows()),
    ]
    return "\n".join(lines) + "\n"


def problems() -> list[str]:
    """What is not allowed, and what the page does not say."""
    written = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    found = [f"{name} is under {licence}, which is not allowed" for name, licence in rows() if not is_allowed(licence)]
    return found + [
        f"{PAGE.name} does not say that {name} is under {licence}"
        for name, licence in rows()
        if f"| {name} | {licence} |" not in written
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing")
    if parser.parse_args().check:
        found = problems()
        print("\n".join(found) or f"{len(rows())} packages, all allowed")
        sys.exit(bool(found))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
