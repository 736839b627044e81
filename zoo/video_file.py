"""A video that appears under its name when it is complete: MP4 (H.264) or GIF."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from agents.errors import ConfigError, MissingDependency

__all__ = [
    "MAX_GIF_FPS",
    "SUFFIXES",
    "FrameWriter",
    "check_imageio",
    "check_writable",
    "video_writer",
]

SUFFIXES = (".mp4", ".gif")
MAX_GIF_FPS = 25
"""Viewers slow a faster GIF down."""


class FrameWriter(Protocol):
    """What imageio returns."""

    def append_data(self, im: Any) -> None:
        """Add a frame of shape ``(height, width, 3)``."""


def check_imageio() -> Any:
    """Return the module that writes, before anything long begins.

    :raises MissingDependency: it, or the ffmpeg that belongs to it, is not installed.
    """
    try:
        importlib.import_module("imageio_ffmpeg")
        return importlib.import_module("imageio.v2")
    except ImportError as error:
        raise MissingDependency(
            f"Recording needs imageio and imageio-ffmpeg ({error}). "
            "Type: pip install 'natural-zoo[record]'"
        ) from error


def check_writable(path: Path) -> None:
    """Write a temporary file beside ``path``, and remove it.

    :raises ConfigError: nothing can be written there.
    """
    with _temporary(path) as temporary:
        temporary.touch()


@contextmanager
def video_writer(path: Path, fps: int, bit_rate: int | None = None) -> Iterator[FrameWriter]:
    """Open a video; whatever fails, an older one stays.

    :param path: ends with one of :data:`SUFFIXES`.
    :param fps: frames a second.
    :param bit_rate: bits a second of an MP4, kept on average and over every two seconds;
        None: constant quality, of whatever size. A GIF has none.
    :raises ConfigError: it cannot be written.
    """
    if path.suffix.lower() == ".gif":
        options: dict[str, Any] = {"duration": 1000 / fps, "loop": 0}
    else:
        options = {
            "format": "FFMPEG",
            "fps": fps,
            "codec": "libx264",
            "macro_block_size": 2,  # what yuv420p needs; the default of 16 would stretch frames
            "output_params": ["-movflags", "+faststart"],  # plays while it loads
            "ffmpeg_log_level": "error",
        }
        if bit_rate is None:
            options["quality"] = 7
        else:
            options["bitrate"] = bit_rate
            limits = ["-maxrate", str(bit_rate), "-bufsize", str(2 * bit_rate)]
            options["output_params"] += limits
    with _temporary(path) as temporary:
        with check_imageio().get_writer(temporary, mode="I", **options) as writer:
            yield writer
        temporary.replace(path)


@contextmanager
def _temporary(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` and leave nothing under it.

    :raises ConfigError: nothing can be written there.
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix.lower()}")
    try:
        if path.is_dir():
            raise IsADirectoryError(None, "it is a folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except OSError as error:
        reason = error.strerror or str(error).strip().splitlines()[-1]
        raise ConfigError(
            f"Cannot write {path}: {reason}. Free space or choose another file with -o."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()
