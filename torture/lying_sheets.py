"""Sheets that lie, through the whole of `phinetune check`: crafted bombs first, then mutants of honest files.

Every file must give pairs or one clear error, within 10 s and 1 GB, and no control character may reach the terminal.
The same number is the same file, so `--one NUMBER` tries a failure again.
"""

from __future__ import annotations

import os
import random
import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

import _contained as contained
import _crafted as crafted
import _seeds as seeds

ABSURD = [
    "0", "-1", "1", "255", "65535", "65536", "1048576", "1048577", "2147483647", "2147483648", "4294967295",
    "4294967296", "9223372036854775807", "18446744073709551616", "1e308", "-1e308", "NaN", "inf", "1" * 400, "",
    "XFD1048576", "A1:XFD1048576", "B2:A1", "../../../etc/passwd", "/dev/zero", "\u202e", "&#0;", "&#x1b;", "&amp;",
    "&a;", "s", "str", "e", "b", "n", "d", "inlineStr", "rId999", "#REF!", "_x0000_", "true", "2024-13-45", "-0",
]  # fmt: skip
NUMBERS = [0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF]
PIECES = [
    b"\0", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\0\0", b"\xc3", b"\xed\xa0\x80", b"\x1b[31m",
    b"\x1b]8;;", b"\x9b", b"\xc2\x9b", b"\xe2\x80\xae", b"\r", b"\n", b"\r\n", b'"', b'""', b",", b";", b"\t", b"|",
    b"{", b"}", b"[", b"]", b":", b"\\ud800", b"\\u0000", b"sep=;\n", b"NaN", b"1e999", b"null", b'{"messages": ',
    b"=1+1", b"@SUM(1)",
    b"[red]", b"[/]", b"[link=x]", b"{question.__class__}", b"<script>", b"&#x1b;", b"#N/A", b"\x85", b"\xe2\x80\xa8",
]  # fmt: skip
_SPLIT_AT = '<>"= '


def make(number: int, honest: dict[str, bytes]) -> tuple[str, bytes]:
    """The name and the bytes of the file of that number."""
    gallery = list(crafted.GALLERY.items())
    if number < len(gallery):
        name, maker = gallery[number]
        return f"crafted{_ending(name)}", maker()
    dice = random.Random(number)
    name, data = dice.choice(list(honest.items()))
    for _ in range(dice.choice((1, 1, 1, 2, 3, 5))):
        if data[:2] == b"PK" and dice.random() < 0.75:
            data = _within_zip(data, dice)
        elif name.startswith("g.") and dice.random() < 0.8:
            data = _text(data, dice)
        else:
            data = _bytes(data, dice)
    endings = ("", "", "", ".csv", ".xlsx", ".xls", ".ods", ".json", ".parquet", ".txt")
    return name + dice.choice(endings), data


def _ending(name: str) -> str:
    kinds = {"ods": ".ods", "xls": ".xls", "xlsb": ".xlsb", "parquet": ".parquet", "csv": ".csv", "json": ".json"}
    return kinds.get(name.split()[0], ".xlsx")


def _bytes(data: bytes, dice: random.Random) -> bytes:
    changed = bytearray(data)
    if not changed:
        return bytes([dice.randrange(256)])
    place = dice.randrange(len(changed))
    match dice.randrange(8):
        case 0:
            changed[place] ^= 1 << dice.randrange(8)
        case 1:
            return data[:place]
        case 2:
            size = dice.choice((1, 2, 4, 8))
            changed[place : place + size] = (dice.choice(NUMBERS) & (1 << 8 * size) - 1).to_bytes(size, "little")
        case 3:
            del changed[place : place + dice.choice((1, 2, 7, 64, 512))]
        case 4:
            piece = changed[place : place + dice.choice((1, 8, 64, 512))]
            changed[dice.randrange(len(changed)) :][:0] = piece
            changed[place:place] = piece * dice.choice((1, 2, 100))
        case 5:
            changed[place:place] = dice.randbytes(dice.choice((1, 4, 100)))
        case 6:
            for _ in range(dice.choice((4, 30, 200))):
                changed[dice.randrange(len(changed))] = dice.randrange(256)
        case 7:
            aligned = place // 4 * 4
            changed[aligned : aligned + 4] = dice.choice(NUMBERS).to_bytes(4, "little")
    return bytes(changed)


def _text(data: bytes, dice: random.Random) -> bytes:
    place = dice.randrange(len(data) + 1)
    match dice.randrange(6):
        case 0:
            return data[:place] + dice.choice(PIECES) + data[place:]
        case 1:
            return data[:place] + dice.choice(PIECES) * dice.choice((2, 50, 3000)) + data[place:]
        case 2:
            return data.decode("utf-8", "replace").encode(
                dice.choice(("utf-16", "utf-16-be", "utf-32", "cp1252", "gb18030")), "replace"
            )
        case 3:
            return data[:place]
        case 4:
            stop = min(len(data), place + dice.choice((1, 5, 40)))
            return data[:place] + data[stop:]
        case _:
            lines = data.split(b"\n")
            dice.shuffle(lines)
            return b"\n".join(lines * dice.choice((1, 1, 30)))


def _within_zip(data: bytes, dice: random.Random) -> bytes:
    """One part of the archive changed and all packed again, so that the change reaches whoever reads the part."""
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            parts = [(name, archive.read(name)) for name in archive.namelist()]
    except Exception:
        return _bytes(data, dice)
    if not parts:
        return data
    place = dice.randrange(len(parts))
    name, body = parts[place]
    match dice.randrange(10):
        case 0:
            del parts[place]
        case 1:
            parts.append((name, dice.choice(parts)[1]))
        case 2:
            parts[place] = (
                dice.choice((f"../{name}", f"/{name}", name.upper(), name.replace("/", "\\"), "a" * 300)),
                body,
            )
        case 3:
            parts[place] = (name, _bytes(body, dice))
        case 4:
            parts[place] = (name, dice.choice(parts)[1])
        case _ if name.endswith(".bin"):
            parts[place] = (name, _bytes(body, dice))
        case _:
            parts[place] = (name, _markup(body.decode("utf-8", "replace"), dice).encode())
    packed = BytesIO()
    kind = dice.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED, zipfile.ZIP_LZMA))
    import warnings

    with warnings.catch_warnings(), zipfile.ZipFile(packed, "w", kind) as archive:
        warnings.simplefilter("ignore")
        for part, content in parts:
            archive.writestr(part, content)
    return packed.getvalue()


def _markup(text: str, dice: random.Random) -> str:
    """A tag gone, doubled or moved; a value or a text replaced by an absurd one."""
    ends = [place for place, letter in enumerate(text) if letter in _SPLIT_AT] or [0]
    first = dice.randrange(len(ends))
    start, stop = ends[first], ends[min(first + dice.choice((1, 1, 2, 6)), len(ends) - 1)]
    start, stop = min(start, stop), max(start, stop)
    match dice.randrange(5):
        case 0:
            return text[:start] + text[stop:]
        case 1:
            return text[:stop] + text[start:stop] * dice.choice((1, 10, 500)) + text[stop:]
        case 2 | 3:
            return text[: start + 1] + dice.choice(ABSURD) + text[stop:]
        case _:
            return "<!DOCTYPE x [<!ENTITY a 'b'>]>" * (dice.random() < 0.3) + text[:start] + "<!-- -->" + text[start:]


def _special(folder: Path) -> list[Path]:
    """What is no file at all."""
    pipe = folder / "pipe.xlsx"
    os.mkfifo(pipe)
    (folder / "loop.xlsx").symlink_to("loop.xlsx")
    (folder / "nowhere.xlsx").symlink_to("missing.xlsx")
    return [folder, pipe, folder / "loop.xlsx", folder / "nowhere.xlsx", Path("/dev/zero"), Path("/dev/null"),
            Path("/proc/self/mem"), folder / ("a" * 300), Path()]  # fmt: skip


def main() -> None:
    options = contained.arguments(str(__doc__), 20_000)
    folder = Path(tempfile.mkdtemp(prefix="lying-sheets-"))
    special = _special(folder)
    honest: dict[str, bytes] = {}

    def prepare() -> None:
        honest.update(seeds.all_seeds())
        import phinetune.cli.check  # noqa: F401

    def trial(number: int) -> str:
        if number < len(special):
            return contained.command_line("check", str(special[number]))
        name, data = make(number - len(special), honest)
        path = folder / name
        path.write_bytes(data)
        try:
            outcome = contained.command_line("check", str(path), *["--json"][: number % 2])
        except BaseException:
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{number}-{name}").write_bytes(data)
            raise
        finally:
            path.unlink()
        return outcome

    contained.run("sheets that lie", options, trial, prepare)


if __name__ == "__main__":
    main()
