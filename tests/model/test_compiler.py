from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys

import pytest

from phinetune.model import compiler
from phinetune.model.compiler import compiled, compilers, has_gcc

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


@pytest.mark.parametrize(("macros", "expected"), [("__GNUC__", True), ("__GNUC__ __clang__", False), ("", False)])
def test_gcc_is_told_from_what_looks_like_it(monkeypatch, tmp_path, macros, expected):
    fake = tmp_path / "cc"
    fake.write_text(f"#!/bin/sh\nfor macro in {macros}; do echo '#define' $macro 1; done\n")
    fake.chmod(0o755)
    monkeypatch.setenv("CC", str(fake))
    has_gcc.cache_clear()
    try:
        assert has_gcc() is expected
    finally:
        has_gcc.cache_clear()


@needs_a_compiler
def test_a_library_that_cannot_be_deleted_is_used_all_the_same(monkeypatch, tmp_path):
    """As on Windows, which does not let go of a library that is loaded."""
    (tmp_path / "one.c").write_text("int one(void) { return 1; }\n")
    monkeypatch.setattr(compiler.tempfile, "tempdir", str(tmp_path))
    unlink = os.unlink

    def refused(path, *rest, **named):
        if str(path).endswith("kernels.so"):
            raise PermissionError(13, "in use", str(path))
        unlink(path, *rest, **named)

    monkeypatch.setattr(os, "unlink", refused)
    library = compiled([tmp_path / "one.c"], ["-fPIC"])
    assert library is not None
    assert library.one() == 1


def test_without_a_place_for_temporary_files_there_is_no_library(monkeypatch, tmp_path):
    monkeypatch.setattr(compiler.tempfile, "tempdir", str(tmp_path / "missing"))
    assert compiled([tmp_path / "one.c"], []) is None


def test_looking_for_a_compiler_imports_no_torch():
    code = "import sys, phinetune.model.compiler; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
