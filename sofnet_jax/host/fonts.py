"""Fonts for text in any script, as far as the machine has them."""

import functools
import subprocess
import unicodedata

from PIL import ImageFont

from sofnet_jax.host.command_line import make_printable, say_note

Font = ImageFont.FreeTypeFont
_NOT_A_CHARACTER = "\uffff"  # a font draws it as it draws all that it lacks


@functools.lru_cache(256)  # the frames of a film repeat a text
def choose_font(text: str, size: int) -> tuple[Font, str]:
    """A font for a line of text, and the text with escapes for characters that the font lacks.

    Pillow's own font has hardly more than ASCII. For other characters fontconfig, where it is
    installed, finds the best of the machine's fonts.
    """
    text = make_printable(unicodedata.normalize("NFC", text))
    font = ImageFont.load_default(size)
    assert isinstance(font, Font)  # Pillow's wheels have FreeType
    missing = _find_missing(text, font)
    if missing and (installed := _load_installed(text, size)):
        font = min(font, installed, key=lambda font: len(_find_missing(text, font)))
        missing = _find_missing(text, font)
    for script in sorted({unicodedata.name(c, "unknown").split()[0] for c in missing}):
        _note_missing(script)
    return font, "".join(ascii(c)[1:-1] if c in missing else c for c in text)


def _find_missing(text: str, font: Font) -> set[str]:
    """The characters that a font lacks."""
    lacking = _draw(_NOT_A_CHARACTER, font)
    return {c for c in text if not c.isspace() and _draw(c, font) == lacking}


def _draw(character: str, font: Font) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(character)
    return mask.size, bytes(mask)


def _load_installed(text: str, size: int) -> Font | None:
    """The installed font that has most of the characters; None if fontconfig names none."""
    codes = " ".join(f"{ord(c):x}" for c in sorted(set(text)))
    command = ["fc-match", "--format=%{file}\n%{index}", f":charset={codes}"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
        file, index = found.stdout.split("\n")
        return ImageFont.truetype(file, size, int(index))
    except (OSError, ValueError, subprocess.SubprocessError):  # OSError: also a font of bitmaps
        return None


@functools.cache
def _note_missing(script: str) -> None:
    say_note(f"pictures show codes for {script} letters; install fontconfig and a font with them")
