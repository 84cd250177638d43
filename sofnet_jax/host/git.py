"""The git commit of the running code."""

import os
import subprocess
from pathlib import Path


def read_commit(folder: Path = Path(__file__).parent) -> str:
    """The commit, e.g. `5a4b74c`, or `5a4b74c-dirty` if tracked files differ from it.

    Without git, a repository or a commit, the environment's SOFNET_COMMIT, which container images
    set, or `unknown`.
    """
    return _ask_git(folder) or os.environ.get("SOFNET_COMMIT") or "unknown"


def _ask_git(folder: Path) -> str:
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
