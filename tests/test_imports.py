"""The import contract: packages import downwards only, and without circles."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1] / "sofnet_jax"
# From the bottom up. A package imports from the lines below its own, and itself.
LAYERS = (
    ("host",),
    ("backbones", "data", "parallel"),
    ("systems",),
    ("run",),
    ("weights",),
    ("evaluation",),
    ("inference", "training"),
    ("archive", "report"),
    ("benchmark",),
    ("commands",),
)
LEVELS = {name: level for level, names in enumerate(LAYERS) for name in names}
COMMANDS = {"__init__", "__main__", "main", "predict", "prepare", "convert", "compare", "sweep"}


def find_package(parts: tuple[str, ...]) -> str:
    """The package that a module, given without `sofnet_jax`, belongs to."""
    return "commands" if parts[0] in COMMANDS or parts[-1] == "__main__" else parts[0]


def find_imports(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    froms = [n for n in nodes if isinstance(n, ast.ImportFrom) and n.module]
    names = {f"{n.module}.{alias.name}" for n in froms for alias in n.names}
    names |= {alias.name for n in nodes if isinstance(n, ast.Import) for alias in n.names}
    return {name for name in names if name.split(".")[0] in ("sofnet_jax", "configs")}


def test_packages_import_downwards_only():
    upward = []
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        own = find_package(parts)
        for name in find_imports(path):
            if name.startswith("configs"):
                upward.append(f"{'.'.join(parts)} imports {name}")
                continue
            other = find_package(tuple(name.split(".")[1:]) or ("__init__",))
            if other != own and LEVELS[other] >= LEVELS[own]:
                upward.append(f"{'.'.join(parts)} imports {name}")
    assert not upward
