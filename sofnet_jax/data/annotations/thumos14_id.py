"""The videos of THUMOS'14 by their ids, which tell the set."""

import re

from sofnet_jax.data.annotations.cell import show
from sofnet_jax.host.errors import UserError

_ID = re.compile(r"video_(validation|test|background)_[0-9]{7}")
_SPLITS = {"validation": "train", "test": "val", "background": None}


def check_id(place: str, id: str) -> str:
    """The id, if it is one of THUMOS'14; raises UserError."""
    if not _ID.fullmatch(id):
        raise UserError(
            f"{place}: {show(id)} is no video of THUMOS'14, as video_test_0000001 is one"
        )
    return id


def get_split(id: str) -> str | None:
    """The split of ours, or None for the background set."""
    return _SPLITS[id.split("_")[1]]
