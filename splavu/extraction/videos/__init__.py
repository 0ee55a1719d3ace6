"""Video files as batches of RGB frames, whichever library decodes them.

PyAV is the default, and gives the pixels and times of the `ffmpeg` command: docs/decoding.md has the comparison, the
corrupted files and the speeds that decide. decord and torchcodec give the same pixels, bit for bit, or refuse a file
by name. DALI's differ a little, so it must be asked for.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from types import MappingProxyType

from splavu.data.keys import VIDEO_EXTENSIONS
from splavu.errors import UserError, nearest
from splavu.extraction.media_files import list_media
from splavu.extraction.videos.reader import VideoReader
from splavu.runtime import extras

__all__ = [
    "BACKENDS",
    "VideoReader",
    "backend_version",
    "image_reader_version",
    "list_videos",
    "open_video",
    "pick_backend",
    "usable_backends",
]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Backend:
    """A library that decodes video, and its reader here."""

    library: str
    """The module to import."""
    module: str
    """Of this package; imported when it is asked for."""
    reader: str
    install: str
    """How to get the library."""

    @property
    def is_installed(self) -> bool:
        return extras.is_installed(self.library)

    def load(self) -> type[VideoReader]:
        return getattr(importlib.import_module(f"{__name__}.{self.module}"), self.reader)


BACKENDS: Mapping[str, Backend] = MappingProxyType(
    {
        "pyav": Backend("av", "pyav", "PyAVReader", extras.remedy("video")),
        "decord": Backend("decord", "decord", "DecordReader", f"{extras.remedy('video')} (Linux on x86-64)"),
        "torchcodec": Backend("torchcodec", "torchcodec", "TorchCodecReader", extras.remedy("torchcodec")),
        "dali": Backend("nvidia.dali", "dali", "DaliReader", f"{extras.remedy('gpu')} (Linux, NVIDIA)"),
    }
)

DEFAULTS = ("pyav", "decord")
"""The first of these that is installed is the default."""


def pick_backend(name: str | None = None) -> str:
    """`name` if it can be used; by default PyAV, or decord (with a warning) where PyAV is not installed.

    Raises:
        UserError: The name is unknown, or that library is not installed or does not work here.
    """
    if name is not None and name not in BACKENDS:
        raise UserError(f"backend '{name}'", "no such video backend", nearest(name, BACKENDS))
    candidates = DEFAULTS if name is None else (name,)
    usable = [candidate for candidate in candidates if BACKENDS[candidate].is_installed]
    if not usable:
        libraries = " or ".join(BACKENDS[candidate].library for candidate in candidates)
        remedy = " or ".join(BACKENDS[candidate].install for candidate in candidates)
        raise UserError(
            f"backend '{name or 'default'}'",
            f"{libraries} is not installed",
            f"{remedy}, or name another with --backend",
        )
    if usable[0] != candidates[0]:
        logger.warning(
            "PyAV is not installed; decoding with %s, which does not notice every damaged file, nor what it shows "
            "otherwise than FFmpeg does: mirrored pictures, more than 8 bits, several videos in a file (%s)",
            usable[0],
            extras.remedy("video"),
        )
    if usable[0] == "dali":
        logger.warning(
            "DALI does not give FFmpeg's colours: 1 to 2 levels off on average, more at the edges of objects"
        )
    BACKENDS[usable[0]].load().check()
    return usable[0]


def usable_backends() -> list[str]:
    """Those that work here; why another one doesn't is logged."""
    names = []
    for name in BACKENDS:
        try:
            names.append(pick_backend(name))
        except UserError as error:
            logger.warning("left out: %s", error)
    return names


def backend_version(name: str) -> str:
    """For a store's provenance: `"pyav 18.1.0"`."""
    library = BACKENDS[name].library
    try:
        return f"{name} {metadata.version(library)}"
    except metadata.PackageNotFoundError:  # DALI's package is named for the version of CUDA
        return f"{name} {importlib.import_module(library).__version__}"


def image_reader_version() -> str:
    """The same for still images: `"opencv 4.13.0"`."""
    return f"opencv {extras.require('cv2', extra='video', why='pictures are read with it').__version__}"


def open_video(path: str | Path, backend: str | None = None) -> VideoReader:
    """Open `path` with a backend of `BACKENDS` (None as `pick_backend` says)."""
    return BACKENDS[pick_backend(backend)].load()(Path(path))


def list_videos(folder: str | Path) -> list[Path]:
    """All video files in `folder` and below, sorted, as `list_media` finds them."""
    return list_media(folder, VIDEO_EXTENSIONS, kind="video", below=True)
