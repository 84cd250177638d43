import os
from pathlib import Path

import pytest

from sofnet_jax.host.errors import UserError
from sofnet_jax.host.paths import expand


def test_the_home_folder_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/home/mine")
    assert expand("~/a") == "/home/mine/a" and expand(Path("~")) == "/home/mine"
    for path in ("a", "./a/", "~nobody.of.this.name/a", "a/~/b", "gs://a//~/b", "~$a.mp4", ""):
        assert expand(path) == path


def test_without_a_home_folder_a_path_in_it_is_refused(monkeypatch):
    """As an unknown user of a container has none; `~` would become a folder of that name."""
    monkeypatch.setattr(os.path, "expanduser", str)
    for path in ("~", "~/a"):
        with pytest.raises(UserError, match=f"^{path}: the home folder is unknown"):
            expand(path)
