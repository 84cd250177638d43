"""A file that takes minutes to read, and hardly any space."""

from pathlib import Path

WIDTH, HEIGHT = 8192, 4608


def write_endless(path: Path, frames: int = 800) -> Path:
    """Black frames of 57 MB that are not stored, since they are zeros."""
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W{WIDTH} H{HEIGHT} F25:1 C420jpeg\n".encode())
        for _ in range(frames):
            file.write(b"FRAME\n")
            file.seek(WIDTH * HEIGHT * 3 // 2, 1)
        file.truncate()
    return path
