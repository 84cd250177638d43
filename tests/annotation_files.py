"""Files of annotations: how tests write them, and what it is to refuse them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from sofnet_jax.data.annotations.benchmark import read_annotation
from sofnet_jax.host.errors import UserError


def write_files(folder: Path, files: Mapping[str, Any]) -> list[Path]:
    """Writes text, bytes, or anything else as JSON, under names that may have folders in them."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, bytes):
            text = content if isinstance(content, str) else json.dumps(content)
            content = text.encode()
        path.write_bytes(content)
    return [folder / name for name in files]


def refuse(name: str, paths: Sequence[Path], *parts: str) -> str:
    """The files of a benchmark are refused in one line that has all the parts."""
    with pytest.raises(UserError) as caught:
        read_annotation(name, paths)
    message = str(caught.value)
    assert message.isprintable(), message
    for part in parts:
        assert part in message
    return message
