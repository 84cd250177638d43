"""Compiled programs are kept where that is possible."""

import os

import jax
import pytest

from sofnet_jax.host import compilation


@pytest.fixture
def find_cache(monkeypatch):
    """The folder of the cache that JAX is given, without a variable that names it."""
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    given = {}
    monkeypatch.setattr(jax.config, "update", given.__setitem__)

    def find() -> str | None:
        compilation._find_folder.cache_clear()
        compilation.keep_compiled_programs()
        compilation.keep_compiled_programs(least_seconds=0.0)
        return given["jax_compilation_cache_dir"]

    yield find
    compilation._find_folder.cache_clear()


def test_programs_are_kept_in_the_home_folder(find_cache, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_cache() == f"{tmp_path}/.cache/sofnet_jax/xla" and not capsys.readouterr().err


def test_without_a_home_folder_no_programs_are_kept(find_cache, monkeypatch, capsys):
    """As an unknown user of a container has none."""
    monkeypatch.setattr(os.path, "expanduser", str)
    assert find_cache() is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert err.startswith("note: compiled programs are not kept (~/.cache/sofnet_jax/xla: the home")


def test_in_a_home_folder_that_cannot_be_written(find_cache, tmp_path, monkeypatch, capsys):
    (tmp_path / ".cache").touch()  # nobody can create a folder in a file, not even root
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_cache() is None
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert f"cannot write to {tmp_path}/.cache/sofnet_jax/xla: Not a directory" in err


def test_a_folder_that_the_user_named_is_left_to_jax(find_cache, monkeypatch):
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "/nowhere")
    with pytest.raises(KeyError, match="jax_compilation_cache_dir"):  # nothing was given to JAX
        find_cache()
