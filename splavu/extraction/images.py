"""Still images as RGB arrays, for VISPR. One image stands for a clip: it is tiled to the encoder's frames."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from splavu.data.keys import IMAGE_EXTENSIONS
from splavu.errors import UserError
from splavu.runtime import extras

MAX_PIXELS = 2**27
"""Of an image: more than any camera's. A damaged header may claim a picture that fills the memory."""


def read_image(path: str | Path) -> np.ndarray:  # -> [H, W, 3] uint8 RGB
    """The image at `path`, turned as its EXIF orientation says.

    Raises:
        UserError: There is no such file, or it is damaged or truncated, or larger than `MAX_PIXELS` by its header.
    """
    cv2 = extras.require("cv2", extra="video", why="pictures are read with it")
    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such image", "check the path")
    data = path.read_bytes()
    width, height = _claimed_size(data)
    if width * height > MAX_PIXELS:
        raise UserError(path, f"is {width} x {height} pixels by its header", "replace the file or leave it out")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    except cv2.error:  # a format whose header isn't read here, of a size that OpenCV refuses
        image = None
    # OpenCV fills the missing part of a truncated JPEG with grey and reports nothing; the end marker is missing.
    if image is None or (data.startswith(b"\xff\xd8") and b"\xff\xd9" not in data[-4096:]):
        raise UserError(path, "damaged, truncated or no image", "replace the file or leave it out")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def list_images(folder: str | Path) -> list[Path]:
    """All images directly in `folder`, sorted.

    Raises:
        UserError: There is no such folder, or no image in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(folder, "no such folder", "give the folder that holds the images")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_EXTENSIONS)
    if not images:
        raise UserError(folder, "no image in this folder", f"known extensions: {' '.join(sorted(IMAGE_EXTENSIONS))}")
    return images


def _claimed_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header of a PNG or JPEG file, before any of it is decoded; (0, 0) where none is found."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if not data.startswith(b"\xff\xd8"):
        return 0, 0
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame; those three are tables
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        place += 1 if marker == 0xFF else 2 + length  # a filling byte
    return 0, 0
