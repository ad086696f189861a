"""Compute the operators of the emulated CANN; record what a program puts on the device.

The C library imports this module at the first launch of a process and calls ``install()``.
"""

import contextlib
import ctypes
import os
import struct
import traceback
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
from kernels import AI_CPU, KERNELS

DTYPES = {
    0: torch.float32, 1: torch.float16, 2: torch.int8, 3: torch.int32, 4: torch.uint8, 6: torch.int16,
    9: torch.int64, 11: torch.float64, 12: torch.bool, 27: torch.bfloat16,
}  # fmt: skip
"""By aclDataType."""
SCALARS = {0: "f", 2: "b", 3: "i", 4: "B", 6: "h", 9: "q", 11: "d", 12: "?"}
TENSOR, SCALAR, INTS, FLOATS, BOOLS, TENSORS, SCALAR_LIST, LAUNCH = range(0x7E4501, 0x7E4509)
"""Kinds of handles, by their first four bytes (operators.c)."""


# -- from C to PyTorch -----------------------------------------------------------------------


def words(address: int, count: int) -> tuple[int, ...]:
    """Return ``count`` 64-bit integers."""
    return struct.unpack(f"{count}q", ctypes.string_at(address, 8 * count))


def tensor(address: int) -> torch.Tensor | None:
    """Return a CPU tensor on the memory of a device tensor."""
    if not address:
        return None
    head, *rest = words(address, 21)
    what, code = head & 0xFFFFFFFF, head >> 32
    assert what == TENSOR, f"not a tensor: {what:#x}"
    dtype = DTYPES[code]
    dims, sizes, strides, (offset, storage, data) = rest[0], rest[1:9], rest[9:17], rest[17:20]
    sizes, strides = sizes[:dims], strides[:dims]
    if 0 in sizes:
        return torch.empty(sizes, dtype=dtype)
    extent = offset + sum((size - 1) * stride for size, stride in zip(sizes, strides, strict=True)) + 1
    assert extent <= storage, f"a tensor ends at {extent}, its memory at {storage}"
    memory = (ctypes.c_char * (extent * dtype.itemsize)).from_address(data)
    return torch.frombuffer(memory, dtype=dtype).as_strided(sizes, strides, offset)


def scalar(address: int) -> Any:
    """Return the number of an aclScalar."""
    if not address:
        return None
    what, code = struct.unpack("ii", ctypes.string_at(address, 8))
    assert what == SCALAR, f"not a scalar: {what:#x}"
    if code in (1, 27):
        return torch.frombuffer(bytearray(ctypes.string_at(address + 8, 2)), dtype=DTYPES[code]).item()
    return struct.unpack_from(SCALARS[code], ctypes.string_at(address + 8, 16))[0]


def array(address: int, expected: int) -> list[Any] | None:
    """Return the items of an array or a list of tensors."""
    if not address:
        return None
    what, count, items = words(address, 3)
    assert what & 0xFFFFFFFF == expected, f"another array: {what:#x}"
    if expected == BOOLS:
        return [byte != 0 for byte in ctypes.string_at(items, count)]
    values = list(words(items, count))
    return [tensor(value) for value in values] if expected == TENSORS else values


class Found:
    """An output whose shape depends on values."""

    def __init__(self, address: int) -> None:
        self.address, self.room = address, tensor(address)

    def put(self, value: torch.Tensor) -> None:
        """Write the values and the shape."""
        assert self.room is not None
        self.room.flatten()[: value.numel()].copy_(value.flatten())
        shape = [value.dim(), *value.shape]
        ctypes.memmove(self.address + 8, struct.pack(f"{len(shape)}q", *shape), 8 * len(shape))


def real(bits: int, letter: str) -> float:
    """Return the floating-point number with these bits."""
    return struct.unpack_from(letter, struct.pack("q", bits))[0]


DECODE = {
    "T": tensor, "R": Found, "S": scalar, "L": lambda p: array(p, TENSORS), "A": lambda p: array(p, INTS),
    "B": lambda p: array(p, BOOLS), "i": int, "u": lambda n: n % 2**64, "c": int, "b": bool,
    "d": lambda bits: real(bits, "d"), "f": lambda bits: real(bits, "d"), "e": DTYPES.get,
}  # fmt: skip
"""By the letters of a signature (kernels.py)."""


def compute(address: int) -> int:
    """Run a launch; the C library calls this. An exception becomes the text of CANN's error."""
    name = "an operator"
    try:
        name = ctypes.string_at(words(address, 2)[1]).decode()
        kinds, kernel = KERNELS[name]
        bits = words(address + 24, len(kinds))
        values = [DECODE[kind](value) for kind, value in zip(kinds, bits, strict=True)]
        first = next((value for value in values if isinstance(value, torch.Tensor)), None)
        if first is not None and first.dtype in AI_CPU.get(name, ()):
            note(f"AI CPU {name} {first.dtype}")
        with torch.no_grad(), torch._C.DisableTorchFunction():
            kernel(*values)
        return 0
    except BaseException:
        text = f"{name} (emulated):\n{traceback.format_exc()}"
        library().emulator_error(text.encode())
        if os.environ.get("EMULATOR_PRINT"):
            print(text, flush=True)
        return 561003


callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(compute)


def library() -> ctypes.CDLL:
    """The emulated runtime."""
    return ctypes.CDLL("libascendcl.so")


def install() -> None:
    """Hand the kernels to the C library."""
    ctypes.CDLL("libopapi.so").emulator_compute(callback)


# -- for programs that observe the device --------------------------------------------------


def note(text: str) -> None:
    """Write a line to the log."""
    library().emulator_note(b"%s", text.encode())


def lazy(yes: bool) -> None:
    """Choose if launches and copies run only when the host waits."""
    library().emulator_lazy(int(yes))


@contextlib.contextmanager
def recording() -> Iterator[list[str]]:
    """Record launches and copies, a line each: ``LAUNCH aclnnAdd``, ``COPY host to device, 12``."""
    end = library().emulator_log
    end.restype = ctypes.c_char_p
    lines: list[str] = []
    end(1)
    try:
        yield lines
    finally:
        lines += end(0).decode().splitlines()


def count(lines: list[str]) -> dict[str, int]:
    """Count launches, copies by direction, waits of the host, and operators on the slow AI CPU.

    torch_npu waits for a stream and then copies with a function that waits too: together one wait.
    """
    kinds = Counter(line.split()[0] for line in lines)
    copies = Counter(line.split(", ")[-2].removeprefix("COPY ") for line in lines if line.startswith("COPY"))
    waits = [line.startswith(("WAIT", "COPY and wait")) for line in lines]
    return {
        "launches": kinds["LAUNCH"],
        "to device": copies["host to device"],
        "from device": copies["device to host"],
        "waits": sum(wait and not before for before, wait in zip([False, *waits], waits, strict=False)),
        "ai cpu": sum(line.startswith("AI CPU") for line in lines),
        "graphs": kinds["GRAPH"],
        "collectives": kinds["HCCL"],
    }
