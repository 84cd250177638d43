"""Every command explains itself, and the package is one that others can install."""

import os
import re
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import sofnet_jax
from sofnet_jax.__main__ import COMMANDS

ROOT = Path(__file__).parents[1]


def _run(*arguments, cwd=ROOT, **environment):
    done = subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("main", "predict") else pytest.mark.slow)
        for name in COMMANDS
    ],
)
def test_help_is_usage_an_example_and_the_commands_own_flags(name):
    code, stdout, stderr = _run("-m", "sofnet_jax", name, "--help")
    assert (code, stderr) == (0, "")
    usage, title, *_ = stdout.split("\n\n")
    first, *_, last = usage.splitlines()
    assert first.startswith(f"usage: python -m sofnet_jax.{name} ")
    assert last.startswith(f"example: python -m sofnet_jax.{name} ")
    assert title.startswith(COMMANDS[name].capitalize().split()[0])
    flags = re.findall(r"^  --(?:\[no\])?(\w+)", stdout.partition("\nflags:\n")[2], re.MULTILINE)
    source = Path(sofnet_jax.__file__).parent
    path = (
        source / f"{name}.py" if (source / f"{name}.py").exists() else source / name / "__main__.py"
    )
    text = path.read_text()
    defined = re.findall(r'flags\.DEFINE_\w+\(\s*"(\w+)"', text)
    declared = {"config", "workdir", "methods", "seeds", "dataset"} & set(
        re.findall(r'"(\w+)"', text)
    )
    assert sorted(flags) == sorted({*defined, *declared})
    assert all(len(line) <= 100 for line in stdout.splitlines())


def test_predict_helps_without_importing_what_it_does_not_need():
    script = "import runpy, sys; sys.argv = ['predict', '-h']\n"
    script += "runpy.run_module('sofnet_jax.predict', run_name='__main__')\n"
    script += "print(*sorted({'jax', 'av', 'numpy', 'flax'} & set(sys.modules)), file=sys.stderr)"
    assert _run("-c", script)[2] == "\n"
    code, stdout, _ = _run("-c", "import sofnet_jax, sys; print('jax' in sys.modules)")
    assert (code, stdout) == (0, "False\n")
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    _run("-m", "sofnet_jax.predict", "--help")
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before < 1


def test_unknown_flags_and_commands_are_one_line_with_the_closest():
    code, stdout, stderr = _run("-m", "sofnet_jax.predict", "a.mp4", "--wndow=3")
    assert (code, stdout, stderr) == (
        1,
        "",
        "error: --wndow: no such flag; did you mean --window?\n",
    )
    code, stdout, stderr = _run("-m", "sofnet_jax", "predct")
    assert (code, stdout, stderr) == (1, "", "error: no command 'predct'; did you mean predict?\n")


def test_the_program_lists_its_commands_and_its_version():
    for arguments in (["--help"], []):
        code, stdout, stderr = _run("-m", "sofnet_jax", *arguments)
        assert (code, stderr) == (0, "") and stdout.startswith("usage: ")
        assert re.findall(r"^  (\w+)", stdout, re.MULTILINE) == list(COMMANDS)
    assert _run("-m", "sofnet_jax", "--version")[1] == f"sofnet {sofnet_jax.__version__}\n"


@pytest.mark.parametrize("arguments", ["--version", "--help", "predict --help"])
def test_nothing_can_be_printed(arguments):
    command = f"{sys.executable} -m sofnet_jax {arguments}"
    for stdout, code, error in (
        (">&-", 0, ""),
        (">/dev/full", 1, "error: cannot write to standard output: No space left on device\n"),
    ):
        done = subprocess.run(f"{command} {stdout}", shell=True, cwd=ROOT, stderr=subprocess.PIPE)
        assert (done.returncode, done.stderr.decode()) == (code, error)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["configs.py", "configs/__init__.py"])
def test_configurations_of_a_users_own_may_lie_beside(name, tmp_path):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("raise SystemExit('the wrong configs')")
    code, stdout, stderr = _run(
        "-c", "import sofnet_jax; print(sofnet_jax.load.__name__)", cwd=tmp_path
    )
    assert (code, stdout) == (0, "load\n"), stderr
    (tmp_path / "mine.py").write_text(
        "from sofnet_jax.run.config import apply_variant, create_default\n"
        "def get_config(variant=''):\n    return apply_variant(create_default(), variant)\n"
    )
    code, _, stderr = _run(
        *("-m", "sofnet_jax.main", "--config=mine.py:tsn", f"--workdir={tmp_path / 'run'}"),
        cwd=tmp_path,
    )
    assert code == 1 and stderr.startswith("error: data.train is empty")


def test_wheel(tmp_path):
    build = (
        "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    )
    source = tmp_path / "source"
    source.mkdir()
    for name in ("sofnet_jax", "pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        (source / name).symlink_to(ROOT / name)
    code, stdout, stderr = _run("-c", build, tmp_path, cwd=source, PYTHONPATH="")
    assert code == 0, stderr
    version = sofnet_jax.__version__
    wheel = tmp_path / f"sofnet_jax-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        entry_points = archive.read(f"sofnet_jax-{version}.dist-info/entry_points.txt").decode()
        metadata = archive.read(f"sofnet_jax-{version}.dist-info/METADATA").decode()
    files = (path for path in (ROOT / "sofnet_jax").rglob("*.*") if path.is_file())
    package = {str(path.relative_to(ROOT)) for path in files if path.suffix != ".pyc"}
    assert {name for name in names if ".dist-info/" not in name} == package
    assert "sofnet_jax/py.typed" in package
    assert entry_points == "[console_scripts]\nsofnet = sofnet_jax.__main__:run\n"
    assert f"\nVersion: {version}\n" in metadata and "\nRequires-Dist: jax<" in metadata
