"""Arrays on the border. Dense row-major arrays of float32 or float64 are read where they lie;
others are copied once. bfloat16 and float16 are widened, which is exact."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any, NamedTuple, Optional

import numpy as np
import numpy.typing as npt

from . import _core
from ._rational import integer


def is_tensor(value: object) -> bool:
    """Is this a PyTorch tensor? (PyTorch is not imported to find out.)"""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def on_device(value: object) -> bool:
    """Does this array live on a device, says its DLPack protocol?"""
    if is_tensor(value):
        return value.device.type != "cpu"  # type: ignore[attr-defined,no-any-return]
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack_device__"):
        return False
    return int(value.__dlpack_device__()[0]) not in (1, 3)  # main memory, pinned main memory


def memory_bytes() -> int:
    """Memory that this process can still have, limits of its container included."""
    return _core.available_memory()


def require_memory(what: str, size: int) -> None:
    """Raises MemoryError before anything is allocated that cannot fit: a system that promises more
    than it has would end the process later."""
    if size > 2**24 and size > 0.9 * memory_bytes():
        raise MemoryError(f"{what}: takes {size / 2**30:.4g} GiB, {memory_bytes() / 2**30:.4g} GiB "
                          "are there")


def as_numpy(name: str, value: Any) -> npt.NDArray[Any]:
    """``value`` as a NumPy array that shares its memory where it has the array protocols or DLPack;
    lists are copied. bfloat16 tensors come as ml_dtypes' or, without it, as bits."""
    if value is None:
        raise TypeError(f"{name} None: an array")
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError(f"{name}: a masked array; fill it first")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if is_tensor(value):
        return _of_tensor(name, value)
    if isinstance(value, (str, bytes, dict, set)):
        raise TypeError(f"{name} of type {type(value).__name__}: an array")
    if on_device(value):
        raise TypeError(f"{name}: an array on a device beside arrays in main memory")
    try:
        if not hasattr(value, "__array__") and hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (ValueError, TypeError, BufferError, RuntimeError) as error:
        raise TypeError(f"{name} of type {type(value).__name__}: an array ({error})") from error


def _of_tensor(name: str, value: Any) -> npt.NDArray[Any]:
    import torch

    if value.device.type != "cpu":
        raise TypeError(f"{name} on {value.device}: main memory")
    if value.layout != torch.strided or value.is_quantized:
        raise TypeError(f"{name} of layout {value.layout}: a dense tensor")
    value = value.detach().resolve_conj().resolve_neg()
    if value.dtype == torch.bfloat16:  # NumPy has no such type: the same bits, widened later
        bits: npt.NDArray[Any] = value.view(torch.int16).numpy().view(np.uint16)
        return bits.view(_BFLOAT16_BITS)
    array: npt.NDArray[Any] = value.numpy()
    return array


_BFLOAT16_BITS = np.dtype([("bfloat16", np.uint16)])


class Floats(NamedTuple):
    """An array of floating-point numbers that has not been converted yet."""

    name: str
    array: npt.NDArray[Any]
    storage: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def wide(self) -> np.dtype[Any]:
        """The type that the oracle takes it in."""
        return np.dtype(np.float64 if self.storage == "float64" else np.float32)

    @property
    def copied_bytes(self) -> int:
        """What a conversion takes; 0 where the array is as it must be."""
        flags = self.array.flags
        dense = self.array.dtype == self.wide and flags.c_contiguous and flags.aligned
        return 0 if dense else self.array.size * (self.wide.itemsize + 4)

    def convert(self) -> npt.NDArray[Any]:
        """The dense array."""
        if self.array.dtype == _BFLOAT16_BITS or self.storage == "bfloat16":
            bits = np.ascontiguousarray(self.array.view(np.uint16)).astype(np.uint32)
            bits <<= np.uint32(16)
            return bits.view(np.float32)
        return np.require(self.array, self.wide, ["C", "A"])


def floats(name: str, value: Any) -> Floats:
    """``value`` as an array of floating-point numbers, not converted yet.

    Raises TypeError for another dtype than float64, float32, float16 and bfloat16.
    """
    array = as_numpy(name, value)
    storage = "bfloat16" if array.dtype == _BFLOAT16_BITS else array.dtype.name
    require_float(name, storage)
    return Floats(name, array, storage)


def require_float(name: str, dtype: str) -> None:
    """Raises TypeError for another dtype than those that ``floats`` takes."""
    if dtype not in ("float64", "float32", "float16", "bfloat16"):
        raise TypeError(f"{name} of dtype {dtype}: float64, float32, float16 or bfloat16")


def converted(name: str, value: Any) -> npt.NDArray[Any]:
    """``value`` as a dense float32 or float64 array, a copy only where needed.

    Raises TypeError as ``floats``, and MemoryError where a copy cannot fit.
    """
    given = floats(name, value)
    require_memory(f"{name} of shape {given.array.shape}, copied", given.copied_bytes)
    return given.convert()


def integers(name: str, value: Any) -> npt.NDArray[np.int64]:
    """A dense int64 array with the values of ``value``, which are integers."""
    array = as_numpy(name, value)
    if array.size == 0 and not isinstance(value, np.ndarray):
        return np.zeros(array.shape, np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name} of dtype {array.dtype}: integers")
    if array.dtype != np.int64 or not array.flags.c_contiguous:
        require_memory(f"{name} of shape {array.shape}, copied", array.size * 8)
    if array.dtype.kind == "u" and array.size and int(array.max()) > 2**63 - 1:
        raise ValueError(f"{name} {int(array.max())}: an integer below 2^63")
    return np.require(array, np.int64, ["C", "A"])


def positions(name: str, value: Any, batch: int, high: int
              ) -> Optional[npt.NDArray[np.int64]]:
    """One position in [0, high] per sequence, int64 [batch], from an integer or an array."""
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) and not is_tensor(value) and np.ndim(value) == 0:
        return np.full(batch, integer(name, value, 0, high), np.int64)
    array = integers(name, value)
    if array.shape != (batch,):
        raise ValueError(f"{name} of shape {array.shape}: an integer, or integers of shape "
                         f"({batch},), one per sequence")
    if array.size:
        integer(name, array.min() if array.min() < 0 else array.max(), 0, high)
    return array


def check_parts(outputs: Sequence[int], lses: Sequence[int]) -> None:
    """Checks the shapes of what ``merge`` joins; raises ValueError naming the offender."""
    if len(outputs) < 2 or outputs[0] < 1 or outputs[-1] < 1:
        raise ValueError(f"outputs of shape {tuple(outputs)}: [parts, .., head_dim], 1 of each at "
                         "least")
    if tuple(lses) != tuple(outputs[:-1]):
        raise ValueError(f"lses of shape {tuple(lses)}: {tuple(outputs[:-1])} here")
