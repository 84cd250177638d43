"""Weights from the Hugging Face hub: hub:owner/name, or hub:owner/name@revision."""

import hashlib
import re
import sys
from pathlib import Path

from sofnet_jax.host.errors import UserError

PREFIX = "hub:"
FILE = "model.safetensors"  # where timm and transformers keep weights; pickles are not fetched
_NAME = r"[\w.-]+/[\w.-]+"


def download(identifier: str) -> Path:
    """The file of weights of a repository, from the cache if it is there.

    A bar shows the progress, and what arrived is compared with the checksum of the hub, again each
    time that it is taken from the cache.

    Raises:
        UserError: no network and nothing in the cache, no such repository, or a damaged file.
    """
    try:
        import huggingface_hub
        from huggingface_hub import errors
    except ImportError as error:
        raise UserError(
            f"{identifier} needs huggingface_hub (pip install -e '.[hub]'), or give a file"
        ) from error
    match = re.fullmatch(rf"({_NAME})(?:@([\w./-]+))?", identifier.removeprefix(PREFIX))
    if not match:
        raise UserError(f"'{identifier}' is no hub id; write hub:owner/name or hub:owner/name@rev")
    huggingface_hub.logging.set_verbosity_error()  # a warning for each of many tries to connect
    print(f"{identifier}: fetching {FILE}, unless the cache has it", file=sys.stderr, flush=True)
    try:
        path = huggingface_hub.hf_hub_download(match[1], FILE, revision=match[2])
    except errors.RepositoryNotFoundError as error:
        raise UserError(
            f"{identifier}: the hub has no such repository, or it is private or gated"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise UserError(f"{identifier}: the repository has no revision {match[2]}") from error
    except errors.LocalEntryNotFoundError as error:
        raise UserError(
            f"{identifier} is not in the cache, and the hub cannot be reached; download {FILE} "
            "where there is a network and give its path"
        ) from error
    except errors.EntryNotFoundError as error:
        raise UserError(f"{identifier}: the repository has no {FILE}") from error
    except (errors.HTTPError, OSError, RuntimeError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UserError(f"{identifier}: {reason}") from error
    _verify(Path(path))
    return Path(path)


def is_name(text: str) -> bool:
    """Whether it could be owner/name."""
    return re.fullmatch(_NAME, text) is not None


def _verify(path: Path) -> None:
    """Compares a cached file with its checksum: SHA-256, or git's SHA-1.

    The cache names what a path links to by it. That may link on, to a store which all repositories
    share and whose names are other checksums.

    Raises:
        UserError: they differ; the file is removed, so that the next try fetches it anew.
    """
    if not path.is_symlink():
        return  # on a file system without links nothing bears the checksum
    checksum = path.readlink().name
    content = path.read_bytes()
    checksums = {
        64: lambda: hashlib.sha256(content),
        40: lambda: hashlib.sha1(b"blob %d\0" % len(content) + content),
    }
    compute = checksums.get(len(checksum))
    if compute and compute().hexdigest() != checksum:
        path.resolve().unlink()
        raise UserError(f"{path} did not have its checksum and was removed; try again")
