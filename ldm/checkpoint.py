"""Weights on disk: `.ckpt` without running pickled code, `.safetensors`, both memory-mapped, and strict loading."""

import contextlib
import ctypes
import mmap
import os
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import safetensors
import torch
from safetensors.torch import save_file

from ldm.errors import LFS_REMEDY, UserError, is_lfs_pointer
from ldm.hashing import file_hash


class _Inert:
    """Stands for a class that old Lightning checkpoints mention beside the weights; carries nothing, does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


_SCALAR = np.float64(0).__reduce__()[0]  # numpy's maker of scalars, wherever this version keeps it
# Harmless names found in published checkpoints beside the tensors (bookkeeping of callbacks, numpy scalars).
_HARMLESS: list[Any] = [
    (_Inert, "pytorch_lightning.callbacks.model_checkpoint.ModelCheckpoint"),
    (_Inert, "pytorch_lightning.callbacks.early_stopping.EarlyStopping"),
    (_SCALAR, "numpy.core.multiarray.scalar"),
    (_SCALAR, "numpy._core.multiarray.scalar"),
    np.dtype,
    type(np.dtype("float64")),
    type(np.dtype("float32")),
    type(np.dtype("int64")),
]


def _code_in(error: Exception) -> str | None:
    """The class or function that torch refused to unpickle; None if it refused for damage, half a name included."""
    found = re.search(r"(?:GLOBAL|function) ([\w.]+)", str(error))
    if found is None or not isinstance(error, pickle.UnpicklingError):
        return None
    module, _, name = found[1].rpartition(".")
    known = sys.modules.get(module)  # never imported for this: that would run its code
    return found[1] if module and name and (known is None or hasattr(known, name)) else None


def read_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a torch file with `weights_only=True`, its tensors mapped from disk rather than copied to memory.

    Raises `UserError` for a missing, truncated or foreign file and for one that holds pickled code.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"checkpoint {path} does not exist")
    _refuse_pointer(path)
    try:
        zipped = zipfile.is_zipfile(path)
        with torch.serialization.safe_globals(_HARMLESS), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on pickle protocols
            data = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except Exception as error:  # a damaged file makes the readers below raise what they like
        code = _code_in(error)
        if code:
            raise UserError(
                f"checkpoint {path} holds pickled code ({code}) and was not loaded; "
                "save its state dict alone, or as safetensors, and give that file"
            ) from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:120]
        if isinstance(error, pickle.UnpicklingError):
            reason = "its list of tensors cannot be read"
        raise UserError(f"checkpoint {path} is damaged or not a torch file ({reason}); copy it again") from None
    if not isinstance(data, dict):
        raise UserError(f"checkpoint {path} holds a {type(data).__name__}, not a dictionary of weights")
    return data


def _refuse_pointer(path: Path) -> None:
    with open(path, "rb") as file:
        if is_lfs_pointer(file.read(64)):
            raise UserError(f"checkpoint {path} {LFS_REMEDY}")


def read_state_dict(path: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Weights by name from `.safetensors` or a torch file (its `state_dict` entry if it has one), mapped from disk."""
    path = Path(path)
    if path.suffix == ".safetensors":
        if not path.is_file():
            raise UserError(f"checkpoint {path} does not exist")
        _refuse_pointer(path)
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(f"checkpoint {path} is damaged or not safetensors ({error}); copy it again") from None
    data = read_checkpoint(path)
    state = data.get("state_dict", data)
    tensors = {k: v for k, v in state.items() if isinstance(v, torch.Tensor)} if isinstance(state, dict) else {}
    if not tensors:
        raise UserError(f"checkpoint {path} holds no weights, neither by name nor under state_dict")
    return tensors


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The text metadata of a `.safetensors` file."""
    if Path(path).is_file():
        _refuse_pointer(Path(path))
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (safetensors.SafetensorError, OSError) as error:
        raise UserError(f"checkpoint {path} is damaged or not safetensors ({error}); copy it again") from None


def load_strict(
    module: torch.nn.Module,
    state: Mapping[str, torch.Tensor],
    source: str,
    *,
    ignore: Iterable[str] = (),
    mapped: str | os.PathLike[str] | None = None,
) -> None:
    """Put `state` into `module`, every name and shape matching, without a second copy in memory.

    The tensors of `state` become the module's parameters where the dtypes agree, so that a module made under
    `torch.device("meta")` costs no memory until then. The others are converted one by one to the module's dtype.

    Args:
        module: the network to fill.
        state: tensors by name.
        source: what messages call `state`.
        ignore: beginnings of names that may be surplus in `state`.
        mapped: the file that `state` was mapped from. The memory that it holds for a tensor is given back as soon as
            the tensor is converted. None: none is given back.

    Raises:
        UserError: keys are missing, surplus or of another shape. The message counts and names them.
    """
    own, surplus_allowed = module.state_dict(), tuple(ignore)
    given = {k: v for k, v in state.items() if not k.startswith(surplus_allowed)}
    missing = [k for k in own if k not in given]
    surplus = [k for k in given if k not in own]
    shapes = [
        f"{k} {tuple(given[k].shape)} for {tuple(own[k].shape)}"
        for k in own
        if k in given and given[k].shape != own[k].shape
    ]
    if missing or surplus or shapes:
        parts = [
            f"{len(keys)} {what} ({', '.join(keys[:3])}{', ...' if len(keys) > 3 else ''})"
            for what, keys in (("missing", missing), ("unexpected", surplus), ("of another shape", shapes))
            if keys
        ]
        raise UserError(
            f"{source} does not fit {type(module).__name__}: {'; '.join(parts)}; "
            f"of {len(own)} keys {len(own) - len(missing) - len(shapes)} match. "
            "Check that the config describes the network the checkpoint was trained with"
        )
    pages, fitting = MappedFile(mapped), {}
    for name, value in sorted(given.items(), key=lambda item: item[1].data_ptr()):  # the order of the file
        fit = value.to(value.device if own[name].is_meta else own[name].device, own[name].dtype)
        if fit is not value:
            pages.release(value)
        fitting[name] = fit
    module.load_state_dict(fitting, strict=True, assign=True)


class MappedFile:
    """Where a file lies in this process's memory; nowhere for None and on systems other than Linux."""

    def __init__(self, path: str | os.PathLike[str] | None):
        self.ranges: list[tuple[int, int]] = []
        maps = Path("/proc/self/maps")
        if path is None or not maps.is_file():
            return
        real = os.path.realpath(path)
        for line in os.fsdecode(maps.read_bytes()).splitlines():  # start-end permissions offset device inode path
            fields = line.split(maxsplit=5)
            if len(fields) == 6 and fields[5] == real:
                start, _, end = fields[0].partition("-")
                self.ranges.append((int(start, 16), int(end, 16)))

    def release(self, tensor: torch.Tensor) -> None:
        """Give back the pages that hold nothing but this tensor; they come again from the file if it is read again.

        The tensor must not have been written to.
        """
        start, end = tensor.data_ptr(), tensor.data_ptr() + tensor.nbytes
        if not tensor.is_contiguous() or not any(a <= start and end <= b for a, b in self.ranges):
            return
        first, last = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, end // mmap.PAGESIZE * mmap.PAGESIZE
        if first < last:
            ctypes.CDLL(None).madvise(ctypes.c_void_p(first), ctypes.c_size_t(last - first), mmap.MADV_DONTNEED)


def hash_aside(path: str | os.PathLike[str]) -> "Future[str]":
    """`file_hash` on a thread that does not keep the program alive: who loads the file meanwhile reads it once."""
    future: Future[str] = Future()

    def work() -> None:
        try:
            future.set_result(file_hash(path))
        except BaseException as error:  # for the one who asks
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    return future


def _apart(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """On the CPU, no two in the same memory: a network that serves twice is written twice, as its names say."""
    apart: dict[str, torch.Tensor] = {}
    seen: set[int] = set()
    for name, value in tensors.items():
        value = value.detach().cpu().contiguous()
        if value.untyped_storage().data_ptr() in seen:
            value = value.clone()
        seen.add(value.untyped_storage().data_ptr())
        apart[name] = value
    return apart


def save_safetensors(
    tensors: Mapping[str, torch.Tensor], path: str | os.PathLike[str], metadata: dict[str, str]
) -> None:
    """Write a `.safetensors` file under a temporary name, then rename it into place.

    Raises `OSError` that knows the file's name, also where the library, which writes from Rust, has only words.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    try:
        save_file(_apart(tensors), part, metadata)
        part.chmod(0o644)  # the library makes it the owner's alone
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        number = re.search(r"os error (\d+)", str(error)) if isinstance(error, safetensors.SafetensorError) else None
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), os.fspath(path)) from None
