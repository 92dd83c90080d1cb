"""The weights of a .gguf file, some rows at a time: every thread reads, merges, packs and writes its own.

rows in bf16 ─► fp32 ─► + s B A ─► packed ─► their place in the file        4 MB each: they stay in the cache
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import prod
from pathlib import Path
from queue import SimpleQueue
from typing import BinaryIO

import gguf
import torch

from phinetune.artifacts.quantize import Kind, pack, packed_bytes
from phinetune.model.gguf_names import interleave
from phinetune.model.merge import MergedTensor

# Numbers. Whole matrices cost page faults; a quarter of this takes a third longer, as threads wait for each other.
_PIECE = 1 << 20
_FLUSH = 1 << 28  # bytes; the disk writes them while the threads go on packing


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor and how the file keeps it: packed as `kind`, from byte `offset` on.

    `head_rows` are the rows of one head where llama.cpp keeps them in another order, and 1 elsewhere.
    """

    tensor: MergedTensor
    kind: Kind
    offset: int
    head_rows: int = 1

    @property
    def end(self) -> int:
        return self.offset + packed_bytes(self.tensor.shape, self.kind)

    def pieces(self) -> Iterator[tuple[int, int]]:
        """Rows that are packed together: about _PIECE numbers, and whole heads."""
        count, *width = self.tensor.shape
        rows = max(1, _PIECE // (prod(width) * self.head_rows)) * self.head_rows
        for start in range(0, count, rows):
            yield start, min(start + rows, count)

    def write(self, file: BinaryIO, start: int, stop: int) -> None:
        """Write some rows to their place in the file."""
        rows = self.tensor.rows(start, stop)
        if self.head_rows > 1:
            rows = interleave(rows, len(rows) // self.head_rows)
        packed = pack(rows, self.kind)
        file.seek(self.offset + packed_bytes((start, *self.tensor.shape[1:]), self.kind))
        file.write(packed.data)


def aligned(offset: int) -> int:
    """The next place in a file where a tensor may begin."""
    return int(gguf.GGUFWriter.ggml_pad(offset, gguf.GGUF_DEFAULT_ALIGNMENT))


def write_weights(path: Path, placed: Sequence[PlacedTensor], on_progress: Callable[[int, int], None]) -> None:
    """Write every tensor to its place in the file at `path`, whose header is there already.

    `on_progress(tensors written, tensors in all)`.
    """
    threads = torch.get_num_threads()
    # Each thread computes its own rows, so none shares its products out again.
    with ExitStack() as stack, ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        idle: SimpleQueue[BinaryIO] = SimpleQueue()  # the open file, once for each thread: its place is its own
        for _ in range(threads):
            idle.put(last := stack.enter_context(path.open("r+b")))

        def write(tensor: PlacedTensor, piece: tuple[int, int]) -> None:
            file = idle.get()
            try:
                tensor.write(file, *piece)
            finally:
                idle.put(file)

        try:
            pieces = [(tensor, piece) for tensor in placed for piece in tensor.pieces()]
            written = pool.map(lambda piece: write(*piece), pieces)
            flushed = placed[0].offset
            for done, tensor in enumerate(placed, start=1):
                for _ in tensor.pieces():
                    next(written)
                on_progress(done, len(placed))
                if tensor.end - flushed > _FLUSH:
                    os.fsync(last.fileno())
                    flushed = tensor.end
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(threads)
    with path.open("r+b") as file:
        file.truncate(aligned(placed[-1].end))
