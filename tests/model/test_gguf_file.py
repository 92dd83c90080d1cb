from __future__ import annotations

import random
import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
import toys

from model.gguf_fixtures import Kind, write_gguf
from phinetune.errors import ModelError
from phinetune.model.gguf_file import GgufFile, StoredTensor, open_gguf


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "toy.gguf"
    write_gguf(path, toys.phi(), toys.tokenizer(), kind=Kind.Q8_0)
    return path


def test_reads_what_the_gguf_package_reads(toy: Path) -> None:
    theirs, ours = gguf.GGUFReader(toy), open_gguf(toy)
    assert ours.metadata == {k: f.contents() for k, f in theirs.fields.items() if not k.startswith("GGUF.")}
    assert list(ours.tensors) == [tensor.name for tensor in theirs.tensors]
    for tensor in theirs.tensors:
        whole = gguf.dequantize(tensor.data, tensor.tensor_type)
        assert ours.tensors[tensor.name].shape == whole.shape
        assert np.array_equal(ours.rows(tensor.name, 0, len(whole)), whole)
        assert np.array_equal(ours.rows(tensor.name, 5, 9), whole[5:9])


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_XS, Kind.IQ2_XXS])
def test_unpacks_what_can_only_be_packed_by_llama_cpp(kind: Kind, tmp_path: Path) -> None:
    _, block_bytes = gguf.GGML_QUANT_SIZES[kind]
    packed = np.random.default_rng(0).integers(0, 256, (40, 2 * block_bytes), dtype=np.uint8)
    tensor = StoredTensor("w", (40, 512), kind, start=7)
    (tmp_path / "k.gguf").write_bytes(bytes(7) + packed.tobytes())
    assert tensor.stop == 7 + packed.size
    found = GgufFile(tmp_path / "k.gguf", {}, {"w": tensor}).rows("w", 3, 39)
    assert np.array_equal(found, gguf.dequantize(packed, kind)[3:39], equal_nan=True)


def test_every_kind_of_value(tmp_path: Path) -> None:
    path = tmp_path / "values.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    values: dict[str, object] = {
        "text": "größe",
        "flag": True,
        "words": ["a", "", "日本"],
        "numbers": [1, -2],
        "reals": [0.5],
        "no": [True],
    }
    writer.add_string("text", values["text"])
    writer.add_bool("flag", True)
    for add, number in (("uint8", 255), ("int8", -128), ("uint16", 65535), ("int64", -(2**63)), ("uint64", 2**64 - 1)):
        getattr(writer, f"add_{add}")(add, number)
        values[add] = number
    writer.add_float64("double", 0.1)
    for key in ("words", "numbers", "reals", "no"):
        writer.add_array(key, values[key])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert open_gguf(path).metadata == values | {"general.architecture": "llama", "double": 0.1}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"GG", "is not a GGUF file"),
        (b"PK\x03\x04 a zip archive", "is not a GGUF file"),
        (b"<!DOCTYPE html><html>Not found", "is not a GGUF file"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "more than fit"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**40), "more than fit"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**63) + bytes(99), "more than fit"),
    ],
)
def test_refuses_what_is_not_a_readable_file(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "foreign.gguf"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=problem) as caught:
        open_gguf(path)
    assert "foreign.gguf" in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("name", ["missing.gguf", "."])
def test_refuses_a_path_without_a_file(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="cannot be opened"):
        open_gguf(tmp_path / name)


def test_refuses_a_file_cut_short_anywhere(toy: Path, tmp_path: Path) -> None:
    whole, path = toy.read_bytes(), tmp_path / "cut.gguf"
    for length in [*range(0, len(whole), len(whole) // 150), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(ModelError):
            open_gguf(path)
    with pytest.raises(ModelError, match="download it again"):
        open_gguf(path)


def test_a_damaged_header_is_never_a_crash(toy: Path, tmp_path: Path) -> None:
    whole, path, chance = toy.read_bytes(), tmp_path / "damaged.gguf", random.Random(7)
    header = min(tensor.start for tensor in open_gguf(toy).tensors.values())
    refused = 0
    for _ in range(300):
        damaged = bytearray(whole)
        damaged[chance.randrange(header)] = chance.randrange(256)
        path.write_bytes(damaged)
        try:
            open_gguf(path)
        except ModelError:
            refused += 1
    assert refused > 20


def test_refuses_one_part_of_several(tmp_path: Path) -> None:
    path = tmp_path / "toy-00001-of-00003.gguf"
    write_gguf(path, toys.phi(), toys.tokenizer(), change=lambda w: w.add_uint16("split.count", 3))
    with pytest.raises(ModelError, match="one of 3 parts") as caught:
        open_gguf(path)
    assert "llama-gguf-split --merge" in caught.value.hint


def test_refuses_weights_that_cannot_be_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "integers.gguf"
    odd = np.ones((4, 32), np.int8)
    write_gguf(path, toys.phi(), toys.tokenizer(), change=lambda w: w.add_tensor("odd", odd))
    with pytest.raises(ModelError, match="I8"):
        open_gguf(path)
