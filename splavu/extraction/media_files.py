"""The videos or images in a folder, and the names of what is left out there: nothing is passed over in silence."""

from __future__ import annotations

import logging
import os
from collections.abc import Collection
from pathlib import Path

from splavu.errors import UserError
from splavu.runtime.files import is_companion

logger = logging.getLogger(__name__)

NAMES_SHOWN = 20
"""Of files that are left out."""


def list_media(folder: str | Path, extensions: Collection[str], *, kind: str, below: bool) -> list[Path]:
    """All files in `folder` that end in one of `extensions`, in upper or lower case, sorted.

    A link that leads nowhere is among them, for its reader to name. What is left out is logged by name: other
    endings, linked folders, folders that can't be read. Companions that macOS leaves (`._a.mp4`) and other hidden files
    without such an ending are no one's data, and are not mentioned.

    Args:
        folder: Where to look.
        extensions: With their dots, in lower case.
        kind: "video" or "image", for messages.
        below: Look into the folders in it, too.

    Raises:
        UserError: There is no such folder, or no such file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(folder, "no such folder", f"give the folder that holds the {kind}s")
    found: list[Path] = []
    left_out: list[str] = []

    def unreadable(error: OSError) -> None:
        left_out.append(f"{Path(error.filename).relative_to(folder)}/ ({error.strerror})")

    for place, folders, names in os.walk(folder, onerror=unreadable):
        if below:
            links = [name for name in folders if (Path(place) / name).is_symlink()]
            left_out += [f"{(Path(place) / name).relative_to(folder)}/ (a link)" for name in links]
        else:
            folders.clear()
        for name in names:
            path = Path(place) / name
            if is_companion(name):
                continue
            if path.suffix.lower() in extensions and (path.is_file() or path.is_symlink()):
                found.append(path)
            elif not name.startswith("."):
                left_out.append(str(path.relative_to(folder)))
    listed = ", ".join(sorted(left_out)[:NAMES_SHOWN])
    if len(left_out) > NAMES_SHOWN:
        listed += f" and {len(left_out) - NAMES_SHOWN} more"
    known = f"known extensions: {' '.join(sorted(extensions))}"
    if not found:
        raise UserError(folder, f"no {kind} in this folder{f', but {listed}' if listed else ''}", known)
    if listed:
        logger.warning("%s: left out, no %s by their names: %s", folder, kind, listed)
    return sorted(found)
