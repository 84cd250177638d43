"""Of which commit the code is."""

import subprocess
from pathlib import Path


def read_commit(folder: Path = Path(__file__).parent) -> str:
    """Such as `5a4b74c`, `5a4b74c-dirty` if tracked files differ from it, or `unknown`.

    It is unknown outside a repository, in one without commits, and where there is no git.
    """
    command = ["git", "--no-optional-locks", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    except OSError:
        return "unknown"
    return done.stdout.strip() or "unknown"
