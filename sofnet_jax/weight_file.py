"""Files of named tensors: .safetensors, PyTorch's, and NumPy's .npz.

Nothing that a file holds is run: pickles are read as weights and nothing else.
"""

import re
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from sofnet_jax.errors import UserError
from sofnet_jax.whole_file import write_whole

Tensors = dict[str, np.ndarray]
Metadata = dict[str, str]

PYTORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # "….pth.tar" is no archive but a habit
READABLE = (".safetensors", ".npz", *PYTORCH)
WRITABLE = (".safetensors", ".npz", ".pth", ".pt")
_WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which checkpoints keep weights


def read_tensors(path: Path) -> tuple[Tensors, Metadata]:
    """The tensors of a file in their own types, and what a .safetensors says of them.

    Raises:
        UserError: no such file, one that is damaged or of another kind, or one that holds something
            else than tensors.
    """
    if not path.is_file():
        raise UserError(f"no file {path}" + (", but a folder" if path.is_dir() else ""))
    if path.suffix not in READABLE:
        raise UserError(f"{path}: weights are read from files that end in {', '.join(READABLE)}")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    if path.suffix == ".npz":
        return _read_npz(path), {}
    return _read_pytorch(path), {}


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], metadata: Metadata) -> None:
    """Writes a file of the kind that its suffix names, whole or not at all.

    Only .safetensors takes the `metadata`: PyTorch's is a plain state dict.

    Raises:
        UserError: another suffix, or a place that cannot be written to.
    """
    require_writable(path)
    # Of a transposed array safetensors would write the memory as it lies.
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    try:
        with write_whole(path) as partial:
            if path.suffix == ".safetensors":
                safetensors.numpy.save_file(tensors, partial, {"format": "pt"} | metadata)
            elif path.suffix == ".npz":
                with partial.open("wb") as file:
                    np.savez(file, allow_pickle=False, **tensors)
            else:
                torch = _import_torch(path)
                state_dict = {name: torch.from_numpy(value) for name, value in tensors.items()}
                torch.save(state_dict, partial)
    except (OSError, RuntimeError, safetensors.SafetensorError) as error:
        raise UserError(f"cannot write {path}: {_first_line(error)}") from error


def require_writable(path: Path) -> None:
    """Raises UserError unless `write_tensors` knows the suffix."""
    if path.suffix not in WRITABLE:
        raise UserError(f"{path}: weights are written to files that end in {', '.join(WRITABLE)}")


def _read_safetensors(path: Path) -> tuple[Tensors, Metadata]:
    try:
        with safetensors.safe_open(path, "np") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}
    except (OSError, TypeError, ValueError, safetensors.SafetensorError) as error:
        raise _unreadable(path, "a .safetensors file", error) from error


def _read_npz(path: Path) -> Tensors:
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    # A single array has no `files`, and an archive that lies of its sizes finds no memory.
    except (
        *(OSError, ValueError, EOFError, TypeError, AttributeError, MemoryError),
        *(zipfile.BadZipFile, NotImplementedError, RuntimeError),
    ) as error:
        raise _unreadable(path, "a .npz file", error) from error


def _read_pytorch(path: Path) -> Tensors:
    torch = _import_torch(path)
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_number_classes()):
            warnings.simplefilter("ignore")  # of old formats, which are welcome
            content = torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # a damaged or hostile file makes the unpickler raise anything
        if foreign := re.search(r"GLOBAL (\S+)", str(error)):
            raise UserError(
                f"{path} holds Python objects ({foreign[1]}), not only tensors; nothing of it was "
                "run. Save model.state_dict() where it comes from"
            ) from error
        if "TorchScript" in str(error):
            raise UserError(
                f"{path} is a TorchScript program; save model.state_dict() where it comes from"
            ) from error
        raise _unreadable(path, "a file of PyTorch's", error) from error
    state_dict = _unwrap(content)
    if state_dict is None:
        raise UserError(
            f"{path} holds no state dict, but {_describe(content)}; save model.state_dict()"
        )
    return {name: _to_numpy(torch, path, name, value) for name, value in state_dict.items()}


def _unwrap(content: Any) -> dict[str, Any] | None:
    """The mapping of names to tensors in what a checkpoint holds; None if there is none."""
    if not isinstance(content, dict):
        return None
    for name in _WRAPPERS:
        if isinstance(content.get(name), dict):
            return _unwrap(content[name])
    tensors = {k: v for k, v in content.items() if isinstance(k, str) and hasattr(v, "numpy")}
    return tensors or None


def _to_numpy(torch: Any, path: Path, name: str, tensor: Any) -> np.ndarray:
    try:
        tensor = tensor.detach()
        if tensor.dtype == torch.bfloat16:  # which NumPy has not of its own
            return tensor.view(torch.uint16).numpy().view(jnp.bfloat16)
        return tensor.numpy()
    except (TypeError, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{path}: {name} is no ordinary tensor: {_first_line(error)}") from error


def _import_torch(path: Path) -> Any:
    """PyTorch, which nothing but its own files needs."""
    try:
        import torch
    except ImportError as error:
        raise UserError(
            f"{path.suffix} files need PyTorch (pip install '.[torch]'); .safetensors do not"
        ) from error
    return torch


def _number_classes() -> list[Any]:
    """NumPy's numbers, such as a learning rate in an optimizer's state; they run nothing.

    Under the name that NumPy had for them before version 2, too.
    """
    scalar = np._core.multiarray.scalar  # type: ignore[attr-defined]  # not in NumPy's stubs
    types = [type(np.dtype(name)) for name in ("f2", "f4", "f8", "i4", "i8", "b1")]
    return [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, *types]


def _unreadable(path: Path, kind: str, error: Exception) -> UserError:
    if not path.stat().st_size:
        return UserError(f"{path} is empty")
    return UserError(f"{path} is not {kind}, or damaged: {_first_line(error)}")


def _describe(content: Any) -> str:
    """What a file holds instead of a state dict."""
    if isinstance(content, dict):
        return f"a dict of {', '.join(map(repr, list(content)[:3]))}" if content else "nothing"
    return f"a {type(content).__name__}"


def _first_line(error: Exception) -> str:
    """The error's own words as far as they fit a line."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    text = f"{type(error).__name__} {lines[0]}" if isinstance(error, KeyError) else lines[0]
    return text if len(text) <= 160 else text[:157] + "…"
