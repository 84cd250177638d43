"""Network addresses as they may be shown and stored."""

import re

# Between user and host; a number after the first colon is a port. Spaces belong to a password
# that was not escaped, as it should be, but none follows its colon.
_PASSWORD = r"(?!\s|\d+(?:/|\s|$))(?:[^\n/]*(?=@)(?!@\S*@)|\S*(?=@))"
_USER = re.compile(rf"(?<=:/)(/?[^\s/:@]*:){_PASSWORD}")
# Cameras and clouds take passwords and keys as parameters, also within the path.
_PARAMETER = re.compile(
    r"(?i)(?<=[?&/;])([\w.-]*(?:pass|pwd|token|key|secret|signature|auth)[\w.-]*=)"
    r"[^&\s/;]+?(?=:?(?:[&\s/;]|$))"
)
_ADDRESS = re.compile(rf"\w[\w+.-]*:/(?:/?[^\s/:@]*:{_PASSWORD})?\S+")


def mask_passwords(text: str) -> str:
    """Replace the passwords and keys of the addresses in a text by ***."""

    def mask(address: re.Match[str]) -> str:
        return _PARAMETER.sub(r"\1***", _USER.sub(r"\1***", address[0]))

    return _ADDRESS.sub(mask, text)
