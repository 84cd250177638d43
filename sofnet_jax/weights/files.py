"""Files of named tensors: .safetensors, PyTorch's, and NumPy's .npz.

Reading a file never executes code: a pickle that holds anything but tensors is rejected.
"""

import io
import os
import re
import stat
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from sofnet_jax.host.errors import UserError, explain_unreadable, first_line
from sofnet_jax.host.files import check_archive, read_arrays, write_whole

Tensors = dict[str, np.ndarray]
Metadata = dict[str, str]

PYTORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # "….pth.tar" is a habit, not an archive
READABLE = (".safetensors", ".npz", *PYTORCH)
WRITABLE = (".safetensors", ".npz", ".pth", ".pt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep weights
_LONGEST_NAME = 200
_MOST_SHARED = 4  # the authors' file holds the same tensors under two names


def read_tensors(path: Path) -> tuple[Tensors, Metadata]:
    """Read the tensors of a file in their stored types, and the metadata of a .safetensors.

    Raises UserError if the file is missing, damaged, of another kind, or holds more than tensors.
    """
    if not _is_file(path):
        raise UserError(
            f"{path}: no such file; give a run's folder, a weight file or hub:owner/name"
        )
    if path.suffix not in READABLE:
        raise UserError(f"{path}: weights are read from files that end in {', '.join(READABLE)}")
    metadata: Metadata = {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # old formats are welcome
            if path.suffix == ".safetensors":
                with safetensors.safe_open(path, "np") as file:
                    tensors = {name: file.get_tensor(name) for name in file.keys()}
                    metadata = file.metadata() or {}
            else:
                tensors = read_arrays(path) if path.suffix == ".npz" else _read_pytorch(path)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or first_line(error)}") from error
    except MemoryError as error:
        raise UserError(f"{path} asks for more memory than there is") from error
    except Exception as error:  # a damaged or hostile file makes the readers raise anything
        raise _explain(path, error) from error
    for name in tensors:
        if not name.isprintable() or len(name) > _LONGEST_NAME:  # would break a line or a terminal
            raise UserError(
                f"{path} calls a tensor {_quote(name)}, as no network does; take another copy"
            )
    return tensors, metadata


@explain_unreadable()
def _is_file(path: Path) -> bool:
    """True for a file. Raises UserError if permissions of a folder above it hide it."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Metadata) -> None:
    """Write the kind of file that the suffix names, whole or not at all.

    Only .safetensors takes the `metadata`: a .pth is a plain state dict. Raises UserError for an
    unknown suffix, or if the file cannot be written.
    """
    require_writable(path)
    # In memory, since the libraries hide the reason of a full disk. C order, since safetensors
    # would write a transposed array in its memory order.
    tensors = {name: np.asarray(value, order="C") for name, value in tensors.items()}
    file = io.BytesIO()
    if path.suffix == ".safetensors":
        file.write(safetensors.numpy.save(tensors, {"format": "pt"} | metadata))
    elif path.suffix == ".npz":
        np.savez(file, allow_pickle=False, **tensors)
    else:
        torch = _import_torch(path)
        torch.save({name: torch.tensor(value) for name, value in tensors.items()}, file)
    try:
        with write_whole(path) as partial:
            partial.write_bytes(file.getvalue())
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(f"cannot write {path}: {reason}") from error


def require_writable(path: Path) -> None:
    """Raise UserError unless `write_tensors` knows the suffix."""
    if path.suffix not in WRITABLE:
        raise UserError(f"{path}: weights are written to files that end in {', '.join(WRITABLE)}")


def _read_pytorch(path: Path) -> Tensors:
    torch = _import_torch(path)
    if zipfile.is_zipfile(path):
        check_archive(path)
    try:
        with torch.serialization.safe_globals(_INERT):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        if foreign := re.search(r"GLOBAL ([\w.]{1,100})", str(error)):
            raise UserError(
                f"{path} holds Python objects ({foreign[1]}), not only tensors; none of it was "
                "run. Save model.state_dict() where it comes from"
            ) from error
        if "TorchScript" in str(error):
            raise UserError(
                f"{path} is a TorchScript program; save model.state_dict() where it comes from"
            ) from error
        raise
    state_dict = _unwrap(torch, content)
    if not state_dict:
        raise UserError(
            f"{path} holds no state dict, but {_describe(content)}; save model.state_dict()"
        )
    tensors = {name: _to_numpy(torch, path, name, value) for name, value in state_dict.items()}
    # A tensor is a view and may claim any size; copying it would allocate that much.
    if sum(value.nbytes for value in tensors.values()) > _MOST_SHARED * path.stat().st_size:
        raise ValueError("its tensors claim to be larger than the file")
    return tensors


def _unwrap(torch: Any, content: Any) -> dict[str, Any]:
    """The tensors by name, out of the dictionaries that a checkpoint wraps them in."""
    for _ in range(3):  # wrappers nest, and a hostile one contains itself
        inner = [content.get(name) for name in _WRAPPERS] if isinstance(content, dict) else []
        content = next((value for value in inner if isinstance(value, dict)), content)
    if not isinstance(content, dict):
        return {}
    return {
        name: value
        for name, value in content.items()
        if isinstance(name, str) and isinstance(value, torch.Tensor)
    }


def _to_numpy(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    try:
        # Not `tensor.detach`: a pickled parameter may carry an attribute of that name.
        tensor = torch.Tensor.detach(tensor)
        if tensor.dtype == torch.bfloat16:  # unknown to NumPy
            return tensor.view(torch.uint16).numpy().view(jnp.bfloat16)
        return tensor.numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: {name} is no ordinary tensor: {_reason(error)}") from error


def _import_torch(path: Path) -> Any:
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path.suffix} files need PyTorch (pip install '.[torch]'); .safetensors do not"
        ) from error
    return torch


class _Ignored:
    """Placeholder for NumPy's numbers, such as a learning rate in an optimizer's state."""

    def __init__(self, *_: Any):
        pass

    __setstate__ = __init__


# What creates NumPy's numbers, as pickles name it; the second is of NumPy before version 2.
_INERT = [
    (_Ignored, "numpy._core.multiarray.scalar"),
    (_Ignored, "numpy.core.multiarray.scalar"),
    (_Ignored, "numpy.dtype"),
]


def _explain(path: Path, error: Exception) -> UserError:
    if not path.stat().st_size:
        return UserError(f"{path} is empty")
    kind = "a PyTorch file" if path.suffix in PYTORCH else f"a {path.suffix} file"
    reason = _reason(error)
    if isinstance(error, KeyError):  # a pickle opcode, which tells the user nothing
        with path.open("rb") as file:
            reason = f"it begins with {file.read(9)!r}"
    return UserError(f"{path} is not {kind}, or damaged: {reason}")


def _describe(content: Any) -> str:
    """What a file holds instead of a state dict."""
    if not isinstance(content, dict):
        return f"something of type {type(content).__name__}"
    names = [_quote(name) for name in content if isinstance(name, str)]
    return f"a dict of {', '.join(names[:3])}" if names else "a dict without names"


def _quote(name: str) -> str:
    return repr(name[:50]) + ("…" if len(name) > 50 else "")


def _reason(error: Exception) -> str:
    """The first sentence of a library's message; further ones are guesses and advice."""
    # PyTorch first advises how to load the file regardless, then says what is wrong with it.
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip()
    sentence = (text.splitlines() or [""])[0].partition(". ")[0]
    return first_line(Exception(sentence or type(error).__name__))
