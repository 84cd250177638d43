"""Weights from the Hugging Face hub: hub:owner/name, or hub:owner/name@revision."""

import hashlib
import re
import sys
from pathlib import Path

from sofnet_jax.host.errors import UserError, first_line
from sofnet_jax.host.paths import expand

PREFIX = "hub:"
FILE = "model.safetensors"  # of timm and transformers; pickles are not fetched
_NAME = r"[\w.-]+/[\w.-]+"


def download(identifier: str) -> Path:
    """Fetch the weights of a repository, or find them in the cache, and compare their checksum.

    Raises UserError if the repository does not exist, the file is damaged, or it is neither in the
    cache nor can be fetched.
    """
    try:
        import huggingface_hub
        from huggingface_hub import constants, errors
    except ImportError as error:
        raise UserError(
            f"{identifier} needs huggingface_hub (pip install '.[hub]'), or give a file"
        ) from error
    match = re.fullmatch(rf"({_NAME})(?:@([\w./-]+))?", identifier.removeprefix(PREFIX))
    if not match:
        raise UserError(f"'{identifier}' is no hub id; write hub:owner/name or hub:owner/name@rev")
    expand(constants.HF_HUB_CACHE)  # refused where it would become a folder `~`
    huggingface_hub.logging.set_verbosity_error()  # it warns at every retry
    print(f"{identifier}: fetching {FILE}, unless it is cached", file=sys.stderr, flush=True)
    nowhere = f"and the hub cannot be reached; download {FILE} elsewhere and give its path"
    reasons = {  # subclasses first
        errors.RepositoryNotFoundError: "the hub has no such repository, or it is private or gated",
        errors.RevisionNotFoundError: f"the repository has no revision {match[2]}",
        errors.LocalEntryNotFoundError: f"it is not in the cache, {nowhere}",
        errors.EntryNotFoundError: f"the repository has no {FILE}",
    }
    failures = (errors.EntryNotFoundError, errors.HTTPError, OSError, RuntimeError, ValueError)
    try:
        path = huggingface_hub.hf_hub_download(match[1], FILE, revision=match[2])
    except failures as error:
        known = (text for kind, text in reasons.items() if isinstance(error, kind))
        raise UserError(f"{identifier}: {next(known, first_line(error))}") from error
    _verify(Path(path))
    return Path(path)


def is_name(text: str) -> bool:
    """Whether a text has the form owner/name."""
    return re.fullmatch(_NAME, text) is not None


def _verify(path: Path) -> None:
    """Compare a cached file with its checksum, SHA-256 or git's SHA-1; remove it if they differ.

    The cache links each path to a file named by its checksum. That file may itself be a link, into
    a store shared by all repositories and named by other checksums.
    """
    if not path.is_symlink():
        return  # a file system without links does not keep the checksum
    checksum = path.readlink().name
    content = path.read_bytes()
    if len(checksum) == 64:
        found = hashlib.sha256(content)
    else:
        found = hashlib.sha1(b"blob %d\0" % len(content) + content)
    if len(checksum) in (40, 64) and found.hexdigest() != checksum:
        path.resolve().unlink()
        raise UserError(f"{path} did not have its checksum and was removed; try again")
