"""Text from elsewhere, as a terminal may show it."""


def make_printable(text: str) -> str:
    """The text with codes in place of what would move the cursor or change colours."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
