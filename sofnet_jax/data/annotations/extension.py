"""How the names of video files end."""

EXTENSIONS = tuple(
    ".mp4 .avi .mkv .webm .mov .m4v .mpg .mpeg .ts .mts .m2ts .wmv .flv .3gp .ogv .vob".split()
)


def is_video(name: str) -> bool:
    """Whether a file's name says that it is a video."""
    return name.lower().endswith(EXTENSIONS)


def strip_extension(name: str) -> str:
    """The name without a video's extension."""
    return name.rpartition(".")[0] if is_video(name) else name
