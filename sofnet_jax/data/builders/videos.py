"""Anyone's own videos."""

from sofnet_jax.data.builders.frames import FrameBuilder


class Videos(FrameBuilder):
    """Videos from a folder per class, a CSV or a JSON file."""

    name = "videos"
    description = "Videos as JPEG frames."
