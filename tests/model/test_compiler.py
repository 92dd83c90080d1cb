from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys

import pytest

from phinetune.model.compiler import compiled, compilers

needs_a_compiler = pytest.mark.skipif(not compilers(), reason="needs a C compiler")


def test_the_environment_names_another_compiler_or_none(monkeypatch):
    monkeypatch.setenv("CC", "ccache 'my gcc' -m64")
    assert compilers() == [["ccache", "my gcc", "-m64"]]
    monkeypatch.setenv("CC", "")
    assert compilers() == []
    monkeypatch.delenv("CC")
    monkeypatch.setattr(shutil, "which", {"gcc": "/usr/bin/gcc", "clang": "/opt/clang"}.get)
    assert compilers() == [["/usr/bin/gcc"], ["/opt/clang"]]
    monkeypatch.setenv("PHINETUNE_NATIVE", "0")
    assert compilers() == []


@needs_a_compiler
def test_several_files_become_one_library(tmp_path):
    (tmp_path / "shared.h").write_text("#define TWICE(x) (2 * (x))\n")
    for name, body in (("one", "TWICE(x) + 1"), ("two", "TWICE(x)")):
        (tmp_path / f"{name}.c").write_text(f'#include "shared.h"\nint {name}(int x) {{ return {body}; }}\n')
    library = compiled([tmp_path / "one.c", tmp_path / "two.c"], ["-O1", "-fPIC"])
    assert isinstance(library, ctypes.CDLL)
    assert (library.one(3), library.two(3)) == (7, 6)


@needs_a_compiler
def test_what_does_not_compile_is_none_and_says_nothing(tmp_path, capfd):
    (tmp_path / "broken.c").write_text("int broken(")
    assert compiled([tmp_path / "broken.c"], []) is None
    assert capfd.readouterr() == ("", "")


def test_looking_for_a_compiler_imports_no_torch():
    code = "import sys, phinetune.model.compiler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
