"""The import contract: packages import downwards only, and without circles."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "sofnet_jax"
# From the bottom up. A package imports from the lines below its own, and itself.
LAYERS = (
    ("host",),
    ("backbones", "data", "parallel"),
    ("systems",),
    ("run",),
    ("weights",),
    ("engines", "evaluation"),
    ("inference", "training"),
    ("archive", "report"),
    ("benchmark",),
    ("commands",),
)
# The same for the modules and packages of sofnet_jax.data.
DATA_LAYERS = (
    ("annotations",),
    ("video",),
    ("views", "batch"),
    ("source",),
    ("prepared", "synthetic"),
    ("pipeline",),
)


def find_package(parts: tuple[str, ...]) -> str:
    """The package that a name, given without `sofnet_jax`, belongs to.

    What `sofnet_jax` itself offers, such as `load`, is made of all packages.
    """
    known = {name for layer in LAYERS for name in layer}
    return "commands" if parts[0] not in known or "__main__" in parts else parts[0]


def find_imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom)]
    assert not any(n.level for n in froms), f"{path} has a relative import"
    names = {f"{n.module}.{alias.name}" for n in froms for alias in n.names}
    names |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return {name for name in names if name.split(".")[0] in ("sofnet_jax", "configs")}


def find_upward(layers, root: Path, find) -> list[str]:
    """The imports that do not lead downwards in `layers`; `find` names the layer's member."""
    levels = {name: level for level, names in enumerate(layers) for name in names}
    upward = []
    for path in root.rglob("*.py"):
        module = ".".join(("sofnet_jax", *path.relative_to(ROOT).with_suffix("").parts))
        own = find(module)
        for name in find_imports(path):
            other = find(name)
            if name.startswith("configs") or (
                other in levels and other != own and levels[other] >= levels[own]
            ):
                upward.append(f"{module} imports {name}")
    return upward


def test_packages_import_downwards_only():
    def find(name: str) -> str:
        return find_package(tuple(name.split(".")[1:]) or ("__init__",))

    assert not find_upward(LAYERS, ROOT, find)


@pytest.mark.parametrize(
    "line",
    [
        "from sofnet_jax import load",
        "from sofnet_jax.report.__main__ import SECTIONS",
        "import sofnet_jax.run.config",
        "from sofnet_jax import run",
    ],
)
def test_an_import_upwards_is_found(line, tmp_path, monkeypatch):
    (tmp_path / "host").mkdir()
    (tmp_path / "host/files.py").write_text(line)
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    with pytest.raises(AssertionError, match="sofnet_jax.host.files imports"):
        test_packages_import_downwards_only()


def test_data_imports_downwards_only():
    def find(name: str) -> str | None:
        return name.split(".")[2] if name.startswith("sofnet_jax.data.") else None

    assert not find_upward(DATA_LAYERS, ROOT / "data", find)
