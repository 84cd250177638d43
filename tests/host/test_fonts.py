"""Text in pictures is legible: in a font that has its characters, or as their codes."""

import importlib.util
from pathlib import Path

import pytest
from fontTools.ttLib import TTFont

from sofnet_jax.host.fonts import choose_font

# A font with Cyrillic and without Chinese letters, wherever the tests run.
DEJAVU = Path(importlib.util.find_spec("matplotlib").origin).parent.joinpath(
    "mpl-data/fonts/ttf/DejaVuSans.ttf"
)


@pytest.fixture
def install(no_fonts, tmp_path, monkeypatch):
    """Installs a script as fontconfig's program."""

    def write(script: str) -> None:
        program = tmp_path / "bin/fc-match"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))

    return write


def test_ascii_needs_no_installed_font(install):
    install("exit 1")
    font, text = choose_font("a.mp4: run, 97.5 %", 13)
    assert font.getname()[0] == "Aileron" and text == "a.mp4: run, 97.5 %"


@pytest.mark.parametrize("written", ["бег: café ×", "бег: cafe\u0301 ×"])
def test_a_font_that_has_the_characters_is_used(written, install, tmp_path):
    install(f'echo "$@" > {tmp_path}/asked\nprintf "%s\\n%s" {DEJAVU} 0')
    font, text = choose_font(written, 13)
    assert font.path == str(DEJAVU) and font.size == 13 and text == "бег: café ×"
    assert set(map(ord, text)) <= TTFont(DEJAVU).getBestCmap().keys()
    asked = (tmp_path / "asked").read_text().rstrip().partition("charset=")[2].split()
    assert {int(code, 16) for code in asked} == set(map(ord, text))


def test_characters_that_no_font_has_are_codes(install, capsys):
    install(f'printf "%s\\n%s" {DEJAVU} 0')
    assert not {*map(ord, "跑步走路")} & TTFont(DEJAVU).getBestCmap().keys()
    assert choose_font("бег 跑步", 13)[1] == r"бег \u8dd1\u6b65"
    assert choose_font("走路", 13)[1] == r"\u8d70\u8def"
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and err.startswith(
        "note: pictures show codes for CJK letters; install"
    )


@pytest.mark.parametrize(
    "script", ["", "exit 1", "echo", "printf '/no/font.ttf\\n0'", "kill -9 $$"]
)
def test_without_a_font_all_but_ascii_are_codes(script, install):
    if script:
        install(script)
    font, text = choose_font("跑: café", 13)
    assert font.getname()[0] == "Aileron" and text == r"\u8dd1: caf\xe9"


def test_what_cannot_be_printed_is_a_code(install):
    assert choose_font("a\n\udcff", 13)[1] == r"a\n\udcff"
