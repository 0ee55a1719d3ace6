"""Still images as RGB arrays, for VISPR. One image stands for a clip: it is tiled to the encoder's frames."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import numpy as np

from splavu.data.keys import IMAGE_EXTENSIONS
from splavu.errors import UserError
from splavu.extraction.media_files import list_media
from splavu.runtime import extras

JPEG = b"\xff\xd8"
"""How such a file begins."""
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
    # OpenCV fills the missing part of a truncated JPEG with grey and reports nothing.
    if image is None or (data.startswith(JPEG) and not _is_whole_jpeg(data)):
        raise UserError(path, "damaged, truncated or no image", "replace the file or leave it out")
    return cv2.cvtColor(image, cv2.COLOR_BGR2RGB)


def list_images(folder: str | Path) -> list[Path]:
    """All images directly in `folder`, sorted, as `list_media` finds them."""
    return list_media(folder, IMAGE_EXTENSIONS, kind="image", below=False)


def _claimed_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header of a file, before any of it is decoded; (0, 0) where none is found."""
    if data.startswith(b"\x89PNG") and len(data) >= 24:
        return struct.unpack(">II", data[16:24])
    if data.startswith(b"BM") and len(data) >= 26:
        width, height = struct.unpack("<ii", data[18:26])
        return width, abs(height)  # below 0: from the top down
    if data.startswith(b"RIFF") and data[8:15] == b"WEBPVP8" and len(data) >= 30:
        return _webp_size(data[12:16], data[20:30])
    if not data.startswith(JPEG):
        return 0, 0
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):  # a start of frame; those three are tables
            height, width = struct.unpack(">HH", data[place + 5 : place + 9])
            return width, height
        place += 1 if marker == 0xFF else 2 + length  # a filling byte
    return 0, 0


def _webp_size(kind: bytes, head: bytes) -> tuple[int, int]:
    """Of a WebP file, by the kind of its first chunk and that chunk's first 10 bytes (RFC 9649)."""
    if kind == b"VP8X":
        return int.from_bytes(head[4:7], "little") + 1, int.from_bytes(head[7:10], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(head[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return int.from_bytes(head[6:8], "little") & 0x3FFF, int.from_bytes(head[8:10], "little") & 0x3FFF


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether the picture's end marker is there; phones and cameras put other data behind it (ITU-T T.81, B.1.1)."""
    place = 2
    while found := _MARKER.search(data, place):
        if found.group() == b"\xff\xd9":
            return True
        place = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")  # a segment
    return False


_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")
"""Of a segment or of the end: what else stands behind 0xff is coded data."""
