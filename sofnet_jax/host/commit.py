"""Of which commit the code is."""

import os
import subprocess
from pathlib import Path


def read_commit(folder: Path = Path(__file__).parent) -> str:
    """Such as `5a4b74c`, `5a4b74c-dirty` if tracked files differ from it, or `unknown`.

    Outside a repository, in one without commits, and where there is no git, it is what the
    environment's SOFNET_COMMIT says, which a container has.
    """
    return _ask_git(folder) or os.environ.get("SOFNET_COMMIT") or "unknown"


def _ask_git(folder: Path) -> str:
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return done.stdout.strip()
