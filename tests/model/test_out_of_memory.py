"""Memory that ran out is told from every other error."""

from __future__ import annotations

import errno

import pytest
import torch
from allocator import run_out

from phinetune.errors import RunError
from phinetune.model.out_of_memory import is_out_of_memory, release_memory


def test_the_allocator_of_this_machine_is_recognised():
    with pytest.raises(RuntimeError) as caught:
        run_out()
    assert is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: not enough memory: you tried to"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("MPS backend out of memory (MPS allocated: 5.10 GB)"),
        RuntimeError("unable to mmap 988097824 bytes from file </m.safetensors>: Cannot allocate memory (12)"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
    ],
)
def test_what_allocators_say_is_recognised(error):
    assert is_out_of_memory(error)


def test_it_is_recognised_behind_an_error_that_it_was_turned_into():
    error = RunError("checkpoint-5 could not be written")
    error.__cause__ = OSError(errno.ENOMEM, "Cannot allocate memory")
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (3x4 and 5x6)"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("out of memory is a word of this value"),
        RunError("The disk is full."),
    ],
)
def test_other_errors_are_not(error):
    assert not is_out_of_memory(error)


def test_releasing_breaks_cycles_that_hold_tensors():
    import gc
    import weakref

    class Node:
        pass

    gc.disable()
    try:
        node = Node()
        node.itself, node.tensor = node, torch.zeros(10)
        gone = weakref.ref(node.tensor)
        del node
        assert gone() is not None
        release_memory()
        assert gone() is None
    finally:
        gc.enable()
