"""Models that lie: .gguf headers, safetensors headers, adapters and model folders, through the product's own readers.

Every one must be read or refused with one clear error, within 10 s and 1 GB more than reading an honest one takes.
"""

from __future__ import annotations

import json
import random
import shutil
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import _absurd as absurd
import _contained as contained

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "model"))

U64 = [0, 1, 2**31, 2**32 - 1, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64 - 1, 1000, 65536]
_KEPT = 4  # bytes at the beginning of a .gguf file that make it one


class Scene:
    """Honest files in a folder, made once."""

    def __init__(self) -> None:
        import toys
        from gguf_fixtures import write_gguf

        import phinetune.api.ask  # noqa: F401
        from phinetune.model import lora
        from phinetune.settings import LoraSettings

        self.root = Path(tempfile.mkdtemp(prefix="lying-models-"))
        self.base = toys.save(self.root / "base")
        write_gguf(self.root / "honest.gguf", toys.phi(), toys.tokenizer())
        self.gguf = (self.root / "honest.gguf").read_bytes()
        adapted = lora.attach(toys.phi(), LoraSettings(), "toy", 0)
        lora.save(adapted, self.root / "adapter")
        self.adapter = self.root / "adapter"
        self.make_phi = toys.phi


def lying_gguf(honest: bytes, dice: random.Random) -> bytes:
    data = bytearray(honest)
    header = min(len(data), honest.find(b"output_norm.bias") + 400)
    for _ in range(dice.choice((1, 1, 1, 2, 4))):
        place = dice.randrange(_KEPT, header)
        match dice.randrange(9):
            case 0 | 1:
                data[place : place + 8] = struct.pack("<Q", dice.choice(U64))
            case 2:
                data[place : place + 4] = struct.pack("<I", dice.choice((0, 4, 8, 9, 10, 12, 13, 99, 2**31, 2**32 - 1)))
            case 3:
                data[place] ^= 1 << dice.randrange(8)
            case 4:
                del data[dice.randrange(_KEPT, len(data)) :]
            case 5:  # a key's value of another size
                keys = [
                    b"block_count",
                    b"head_count",
                    b"embedding_length",
                    b"context_length",
                    b"alignment",
                    b"feed_forward",
                ]
                at = data.find(dice.choice(keys))
                if at > 0:
                    data[at + 20 : at + 24] = struct.pack("<I", dice.choice((0, 1, 2**31, 2**32 - 1, 10**9)))
            case 6:
                data[8:16] = struct.pack("<Q", dice.choice(U64))
            case 7:
                data[16:24] = struct.pack("<Q", dice.choice(U64))
            case 8:
                del data[place : place + dice.choice((1, 4, 8, 100))]
        header = min(header, len(data)) or 1
        if header <= _KEPT:
            break
    return bytes(data)


def _key(name: str, kind: int, value: bytes) -> bytes:
    return struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", kind) + value


def _gguf(*keys: bytes, tensors: tuple[bytes, ...] = (), tensor_count: int | None = None) -> bytes:
    count = len(tensors) if tensor_count is None else tensor_count
    return b"GGUF" + struct.pack("<IQQ", 3, count, len(keys)) + b"".join(keys) + b"".join(tensors) + bytes(64)


def _tensor(name: str, shape: tuple[int, ...], kind: int = 0, offset: int = 0) -> bytes:
    head = struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", len(shape))
    return head + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)


def crafted_ggufs() -> list[bytes]:
    nested = struct.pack("<IQ", 9, 1) * 100_000
    return [
        _gguf(_key("a", 9, nested)),
        _gguf(_key("a", 9, struct.pack("<IQ", 9, 2**61))),
        _gguf(_key("a", 9, struct.pack("<IQ", 8, 2**62))),
        _gguf(_key("a", 9, struct.pack("<IQ", 0, 2**64 - 1))),
        _gguf(_key("a", 8, struct.pack("<Q", 2**64 - 1))),
        _gguf(_key("general.alignment", 4, struct.pack("<I", 0))),
        _gguf(_key("general.alignment", 6, struct.pack("<f", float("nan")))),
        _gguf(_key("general.alignment", 8, struct.pack("<Q", 1) + b"x")),
        _gguf(_key("general.alignment", 9, struct.pack("<IQ", 4, 0))),
        _gguf(_key("general.alignment", 10, struct.pack("<Q", 2**63))),
        _gguf(_key("split.count", 8, struct.pack("<Q", 1) + b"x")),
        _gguf(_key("general.architecture", 4, struct.pack("<I", 7)), tensors=(_tensor("token_embd.weight", (8, 8)),)),
        _gguf(
            _key("general.architecture", 9, struct.pack("<IQ", 4, 0)), tensors=(_tensor("token_embd.weight", (8, 8)),)
        ),
        _gguf(tensors=(_tensor("a", (2**32, 2**32)),)),
        _gguf(tensors=(_tensor("a", (2**63, 2**63, 2**63, 2**63)),)),
        _gguf(tensors=(_tensor("a", (1, 1), offset=2**64 - 1),)),
        _gguf(tensors=(_tensor("a", (1, 1), offset=2**63),)),
        _gguf(tensors=(_tensor("a", (0, 1)),)),
        _gguf(tensors=(_tensor("a", ()),)),
        _gguf(tensors=(_tensor("a", (1,) * 5),)),
        _gguf(tensors=(_tensor("a", (1,), kind=39),)),
        _gguf(tensors=(_tensor("a", (1,), kind=2**32 - 1),)),
        _gguf(tensors=(_tensor("a", (1,)), _tensor("a", (1,)))),
        _gguf(tensor_count=2**64 - 1),
        b"GGUF",
        b"GGUF" + struct.pack("<I", 3),
        b"GGUF" + struct.pack(">I", 3) + bytes(100),
        b"",
    ]


def lying_safetensors(honest: bytes, dice: random.Random) -> bytes:
    [length] = struct.unpack("<Q", honest[:8])
    header, body = json.loads(honest[8 : 8 + length]), honest[8 + length :]
    match dice.randrange(10):
        case 0:
            return struct.pack("<Q", dice.choice(U64)) + honest[8:]
        case 1:
            return honest[: dice.randrange(len(honest))]
        case 2:
            return honest[: 8 + length] + bytes(dice.choice((b"\xff\xff", b"\x7f\xc0", b"\0\x80"))) * (len(body) // 2)
        case 3:
            entry = header[dice.choice([name for name in header if name != "__metadata__"])]
            entry["data_offsets"] = [dice.choice((0, 8, 2**63, -1, 10)), dice.choice((0, 8, 2**63, 2**64, len(body)))]
        case 4:
            entry = header[dice.choice([name for name in header if name != "__metadata__"])]
            entry["shape"] = dice.choice(([], [0], [2**32, 2**32], [-1, 4], [10**9, 1], [1] * 1000, ["a"]))
        case 5:
            name = dice.choice([name for name in header if name != "__metadata__"])
            header[dice.choice(("", "../x", "a" * 10_000, name.replace("lora_A", "lora_B"), name + ".x"))] = header.pop(
                name
            )
        case 6:
            entry = header[dice.choice([name for name in header if name != "__metadata__"])]
            entry["dtype"] = dice.choice(("F64", "I64", "F8_E4M3", "BOOL", "X", 1, None, "F32", "BF16"))
        case _:
            header = absurd.changed(header, dice)
    text = absurd.text_of(header, dice)
    return struct.pack("<Q", len(text)) + text + body


def _try_gguf(scene: Scene, data: bytes) -> None:
    import torch

    from phinetune.api.tokenizer import load_tokenizer
    from phinetune.model.gguf_base import gguf_note, gguf_summary, load_gguf

    path = scene.root / "lying.gguf"
    path.write_bytes(data)
    gguf_summary(path)
    gguf_note(path, "phinetune.recipe")
    load_tokenizer(str(path))
    load_gguf(path, torch.float32, "cpu")


def _try_adapter(scene: Scene, dice: random.Random) -> None:
    from phinetune.model import lora
    from phinetune.model.stored import stored_model

    place = scene.root / "lying-adapter"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(scene.adapter, place)
    if dice.random() < 0.6:
        config = json.loads((place / "adapter_config.json").read_text())
        if dice.random() < 0.5:
            name = dice.choice(
                ("r", "lora_alpha", "target_modules", "rank_pattern", "bias", "lora_dropout", "peft_type")
            )
            config[name] = absurd.value(dice)
        else:
            config = absurd.changed(config, dice)
        (place / "adapter_config.json").write_bytes(absurd.text_of(config, dice))
    else:
        weights = place / "adapter_model.safetensors"
        weights.write_bytes(lying_safetensors(weights.read_bytes(), dice))
    if dice.random() < 0.4:
        stored = stored_model(scene.base, place)
        for tensor in stored.tensors if stored else ():
            tensor.make()
    else:
        lora.load_adapter(scene.make_phi(), place)


def _try_base(scene: Scene, dice: random.Random) -> None:
    import torch

    from phinetune.model.load import load_base
    from phinetune.model.stored import stored_model

    place = scene.root / "lying-base"
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(scene.base, place)
    name = dice.choice(
        ("config.json", "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "index")
    )
    if name == "index":
        lies = ("../../../../../etc/passwd", "/dev/zero", "model.safetensors", "missing.safetensors", "", "adapter.bin")
        index: Any = {
            "metadata": {},
            "weight_map": {"lm_head.weight": dice.choice(lies), "model.norm.weight": dice.choice(lies)},
        }
        (place / "model.safetensors.index.json").write_bytes(absurd.text_of(absurd.changed(index, dice), dice))
        if dice.random() < 0.5:
            (place / "model.safetensors").rename(place / "model-00001-of-00001.safetensors")
    elif name == "model.safetensors":
        (place / name).write_bytes(lying_safetensors((place / name).read_bytes(), dice))
    else:
        record = json.loads((place / name).read_text())
        if name == "config.json" and dice.random() < 0.5:
            record[dice.choice(list(record))] = absurd.value(dice)
        else:
            record = absurd.changed(record, dice)
        (place / name).write_bytes(absurd.text_of(record, dice))
    if dice.random() < 0.4:
        stored = stored_model(place, None)
        for tensor in stored.tensors if stored else ():
            tensor.make()
    else:
        load_base(str(place), torch.float32, torch.device("cpu"))


def main() -> None:
    options = contained.arguments(str(__doc__), 3000)
    made: list[Scene] = []

    def trial(number: int) -> str:
        from phinetune.errors import PhinetuneError

        scene, dice = made[0], random.Random(number)
        crafted = crafted_ggufs()
        try:
            if number < len(crafted):
                _try_gguf(scene, crafted[number])
            else:
                match number % 3:
                    case 0:
                        _try_gguf(scene, lying_gguf(scene.gguf, dice))
                    case 1:
                        _try_adapter(scene, dice)
                    case _:
                        _try_base(scene, dice)
        except PhinetuneError as error:
            return "refused" if 0 < len(error.message) < contained.LONGEST_MESSAGE else "a message too long"
        return "good"

    contained.run("models that lie", options, trial, lambda: made.append(Scene()))


if __name__ == "__main__":
    main()
