"""Still images as RGB arrays, for VISPR. One image stands for a clip: it is tiled to the encoder's frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splavu.errors import UserError

IMAGE_EXTENSIONS = frozenset({".jpg", ".jpeg", ".png"})


def read_image(path: str | Path) -> np.ndarray:  # -> [H, W, 3] uint8 RGB
    """The image at `path`, turned as its EXIF orientation says.

    Raises:
        UserError: There is no such file, or it is damaged or truncated.
    """
    import cv2

    path = Path(path)
    if not path.is_file():
        raise UserError(path, "no such image", "check the path")
    data = path.read_bytes()
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    # OpenCV fills the missing part of a truncated JPEG with grey and says nothing; the end marker tells.
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
