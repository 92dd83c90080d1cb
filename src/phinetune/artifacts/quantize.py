"""How a .gguf file packs its weights: which type each tensor takes in a kind such as q4_k_m, and the packing itself.

    fp32 rows ─► blocks of 32 or 256 numbers that share a scale ─► bytes, those that llama.cpp's own quantizer writes

Our quantize.c packs q4_0, q4_K, q5_K and q6_K where there is a C compiler, and `libgguf` the other types, both byte for
byte like llama.cpp; libgguf alone takes about eight times as long for the K types. Without either, llama.cpp's `gguf`
package packs the simple types, and the K types, which it cannot write, are refused. Which tensor takes which type
follows `llama_tensor_get_type` of llama.cpp's src/llama-quant.cpp.
"""

from __future__ import annotations

import ctypes
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TypeAlias

import gguf
import numpy as np
import torch

from phinetune.errors import SettingsError
from phinetune.model.compiler import compiled
from phinetune.model.gguf_base import gguf_summary
from phinetune.model.gguf_file import open_gguf

Kind: TypeAlias = gguf.GGMLQuantizationType
_File: TypeAlias = gguf.LlamaFileType

HAS_LIBGGUF = find_spec("libgguf") is not None
if HAS_LIBGGUF:
    import libgguf

KINDS: dict[str, tuple[Kind, _File]] = {
    "f32": (Kind.F32, _File.ALL_F32),
    "f16": (Kind.F16, _File.MOSTLY_F16),
    "bf16": (Kind.BF16, _File.MOSTLY_BF16),
    "q8_0": (Kind.Q8_0, _File.MOSTLY_Q8_0),
    "q6_k": (Kind.Q6_K, _File.MOSTLY_Q6_K),
    "q5_k_m": (Kind.Q5_K, _File.MOSTLY_Q5_K_M),
    "q5_k_s": (Kind.Q5_K, _File.MOSTLY_Q5_K_S),
    "q5_1": (Kind.Q5_1, _File.MOSTLY_Q5_1),
    "q5_0": (Kind.Q5_0, _File.MOSTLY_Q5_0),
    "q4_k_m": (Kind.Q4_K, _File.MOSTLY_Q4_K_M),
    "q4_k_s": (Kind.Q4_K, _File.MOSTLY_Q4_K_S),
    "q4_1": (Kind.Q4_1, _File.MOSTLY_Q4_1),
    "q4_0": (Kind.Q4_0, _File.MOSTLY_Q4_0),
    "q3_k_m": (Kind.Q3_K, _File.MOSTLY_Q3_K_M),
    "q2_k": (Kind.Q2_K, _File.MOSTLY_Q2_K),
}
_UNPACKED = {Kind.F32: torch.float32, Kind.F16: torch.float16, Kind.BF16: torch.bfloat16}
_NATIVE = {Kind.Q4_0: "pack_q4_0", Kind.Q4_K: "pack_q4_k", Kind.Q5_K: "pack_q5_k", Kind.Q6_K: "pack_q6_k"}
# What a row takes whose length the 256 numbers of a K block do not divide; SmolLM2's 576 is one.
_NARROWER = {
    Kind.Q2_K: Kind.IQ4_NL,
    Kind.Q3_K: Kind.IQ4_NL,
    Kind.Q4_K: Kind.Q5_0,
    Kind.Q5_K: Kind.Q5_1,
    Kind.Q6_K: Kind.Q8_0,
}


def kind_of_file(path: Path) -> str:
    """The kind that the .gguf file `path` says it is; where it says none, or none of ours, the type of most weights."""
    number = open_gguf(path).metadata.get(gguf.Keys.General.FILE_TYPE)
    stated = (kind for kind, (_, file_type) in KINDS.items() if file_type == number)
    return next(stated, None) or gguf_summary(path).packing.lower()


def check_kinds(wanted: str | Sequence[str]) -> list[str]:
    """The kinds in `wanted`, a sequence or a text with commas, each once. Raises SettingsError as `check_kind`, and
    where there is none.
    """
    texts = [wanted] if isinstance(wanted, str) else wanted
    named = [kind.strip() for text in texts for kind in text.split(",") if kind.strip()]
    if not named:
        raise SettingsError("No packing is named.", f"Choose one or more of {', '.join(KINDS)}.")
    return list(dict.fromkeys(check_kind(kind) for kind in named))


def check_kind(kind: str) -> str:
    """The kind in lower case. Raises SettingsError that lists the known ones, or says what is missing for it."""
    name = kind.lower()
    if name not in KINDS:
        raise SettingsError(f"There is no packing called {kind} here.", f"Choose one of {', '.join(KINDS)}.")
    if not _can_pack(KINDS[name][0]):
        others = ", ".join(other for other, (packed, _) in KINDS.items() if _can_pack(packed))
        raise SettingsError(
            f"{kind} is packed by the package libgguf, which is not installed.",
            f"Install it with: pip install libgguf. Without it there are {others}.",
        )
    return name


def _can_pack(kind: Kind) -> bool:
    return kind not in _NARROWER or HAS_LIBGGUF or (kind in _NATIVE and native() is not None)


@dataclass(frozen=True)
class Packing:
    """Which type each tensor takes in the kind `name` for a model of `layers` blocks.

    `tied`: the embedding also makes the logits. `shared`: query heads for each key-value head.
    """

    name: str
    layers: int
    tied: bool
    shared: int

    @property
    def file_type(self) -> _File:
        return KINDS[self.name][1]

    def kind_of(self, name: str, shape: tuple[int, ...]) -> Kind:
        """The type of the GGUF tensor `name`: vectors stay in fp32, the sensitive matrices take more bits."""
        kind = KINDS[self.name][0]
        if len(shape) == 1:
            return Kind.F32
        if kind in _UNPACKED:
            return kind
        fits = shape[-1] % _block(kind) == 0
        if name == ("token_embd.weight" if self.tied else "output.weight"):
            kind = Kind.Q6_K if kind != Kind.Q8_0 and fits and _can_pack(Kind.Q6_K) else Kind.Q8_0
        elif match := re.fullmatch(r"blk\.(\d+)\.(\w+)\.weight", name):
            kind = self._more(kind, int(match[1]), match[2])
        return _dividing(kind, shape[-1])

    def _more(self, kind: Kind, layer: int, role: str) -> Kind:
        """What the M and S mixtures give the values and the way down of the MLP in some layers."""
        eighth = self.layers // 8
        outer = layer < eighth or layer >= 7 * self.layers // 8 or (layer - eighth) % 3 == 2
        match self.name, role:
            case "q4_k_m" | "q5_k_m", "attn_v" | "ffn_down":
                return Kind.Q6_K if outer else kind
            case "q4_k_s", "attn_v":
                return Kind.Q5_K if layer < 4 else kind
            case "q4_k_s", "ffn_down":
                return Kind.Q5_K if layer < eighth else kind
            case "q3_k_m", "attn_v":
                return Kind.Q5_K if layer < 2 else Kind.Q4_K
            case "q3_k_m", "ffn_down":
                return Kind.Q5_K if layer < self.layers // 16 else Kind.Q4_K
            case "q3_k_m", "attn_output":
                return Kind.Q4_K
            case "q2_k", "attn_v":
                return Kind.Q4_K if self.shared >= 4 else Kind.Q3_K
            case "q2_k", "ffn_down" | "attn_output":
                return Kind.Q3_K
        return kind


def packed_bytes(shape: tuple[int, ...], kind: Kind) -> int:
    """What a tensor takes in the file, without padding."""
    block, size = gguf.GGML_QUANT_SIZES[kind]
    return int(np.prod(shape) // block * size)


def pack(rows: torch.Tensor, kind: Kind) -> np.ndarray[Any, Any]:
    """Rows (rows, n) of a matrix, or a vector, in fp32 as the bytes of `kind`: (rows, bytes of a row)."""
    if kind in _UNPACKED:
        # torch rounds 14 times as fast as numpy does to f16, and to the same bytes.
        return rows.to(_UNPACKED[kind]).view(torch.uint8).numpy()
    if kind in _NATIVE and rows.shape[-1] % _block(kind) == 0 and (library := native()) is not None:
        return _pack_natively(library, rows, kind)
    if HAS_LIBGGUF:
        packed: np.ndarray[Any, Any] = libgguf.quantize_rows(rows.numpy(), int(kind))
        return packed
    plain: np.ndarray[Any, Any] = gguf.quantize(rows.numpy(), kind)
    return plain


@functools.cache
def native() -> ctypes.CDLL | None:
    """quantize.c, compiled; None without a C compiler."""
    fast = ("-O3", "-march=native", "-ffinite-math-only", "-fno-trapping-math", "-fno-math-errno")
    return compiled([Path(__file__).with_name("quantize.c")], (*fast, "-ffp-contract=off", "-fPIC"))


def _pack_natively(library: ctypes.CDLL, rows: torch.Tensor, kind: Kind) -> np.ndarray[Any, Any]:
    rows = rows.contiguous()
    block, size = gguf.GGML_QUANT_SIZES[kind]
    packed = np.empty((*rows.shape[:-1], rows.shape[-1] // block * size), np.uint8)
    places = (ctypes.c_void_p(rows.data_ptr()), ctypes.c_void_p(packed.ctypes.data))
    getattr(library, _NATIVE[kind])(*places, ctypes.c_int64(rows.numel() // block))
    return packed


def _block(kind: Kind) -> int:
    return int(gguf.GGML_QUANT_SIZES[kind][0])


def _dividing(kind: Kind, width: int) -> Kind:
    if width % _block(kind):
        kind = _NARROWER.get(kind, Kind.F16)
    return kind if width % _block(kind) == 0 else Kind.F16
