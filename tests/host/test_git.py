"""The commit of the code, in a repository and outside."""

import shutil
import subprocess

import pytest

from sofnet_jax.host.git import read_commit


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_commit_and_whether_tracked_files_differ_from_it(tmp_path, monkeypatch):
    def git(*command: str) -> str:
        who = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *who, *command], cwd=tmp_path, check=True, capture_output=True
        )
        return done.stdout.decode().strip()

    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    monkeypatch.setenv("SOFNET_COMMIT", "0123abc")
    assert read_commit(tmp_path) == "0123abc"
    monkeypatch.delenv("SOFNET_COMMIT")
    assert read_commit(tmp_path) == "unknown"
    git("init")
    assert read_commit(tmp_path) == "unknown"
    (tmp_path / "code.py").write_text("1")
    git("add", "code.py")
    git("commit", "-m", "first")
    git("tag", "-a", "v1", "-m", "a tag")  # the commit is told, not the tag
    (tmp_path / "notes").write_text("not tracked")
    commit = git("rev-parse", "--short", "HEAD")
    monkeypatch.setenv("SOFNET_COMMIT", "0123abc")  # of another place
    assert read_commit(tmp_path) == commit
    (tmp_path / "code.py").write_text("2")
    assert read_commit(tmp_path) == f"{commit}-dirty"


def test_commit_is_unknown_without_git(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert read_commit(tmp_path) == "unknown"
