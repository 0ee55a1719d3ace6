"""Feature files: a float array (T, N, D) or (T, D) a video, or one (T, D) file a crop, checked as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError

import numpy as np
import torch
from torch import Tensor

from mgfn.data.lists import Entry
from mgfn.errors import InputError

NPY_ERRORS = (OSError, ValueError, EOFError, SyntaxError, TokenError, TypeError, KeyError, OverflowError)
"""What NumPy raises for a damaged file: it reads the header as Python."""


@dataclass(frozen=True)
class FeatureFile:
    """Where a video's features lie, and what their headers say."""

    paths: tuple[Path, ...]
    """One file, or one a crop (`NAME__0.npy`, `NAME__1.npy`, ...)."""
    num_snippets: int
    num_crops: int
    width: int


MOST_CROPS = 10
"""Of a snippet, by any extraction that is known; more are taken for snippets, in an array whose crops come first."""


class FeatureVideos(Sequence):
    """The features of a list's videos, read one at a time.

    Every file's header is read at once: what is missing or of another width is known before anything is trained.

    Args:
        entries: The videos.
        root: Folder of the feature files.
        feature_size: Width to insist on; None takes the first file's.
        crops_first: The files' first axis is the crop.

    Raises:
        InputError: A file is missing, empty, not a feature array, or of another width or number of crops than the
            others, or its crops come first.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        root: str | Path,
        *,
        feature_size: int | None = None,
        crops_first: bool = False,
    ) -> None:
        self.entries = list(entries)
        root = Path(root)
        if not root.is_dir():
            raise InputError(root, "there is no such folder of features", "set --features")
        paths = [_paths_of(entry.name, root) for entry in self.entries]
        whole = root.resolve()
        for path in (path for found in paths for path in found):
            if not path.resolve().is_relative_to(whole):
                problem = f"leads out of its folder, to '{path.resolve()}'"
                raise InputError(path, problem, "copy the file into the folder")
        if missing := [entry for entry, found in zip(self.entries, paths, strict=True) if not found]:
            raise InputError(
                missing[0].place,
                f"'{missing[0].name}.npy' is not in {root} ({len(missing)} of {len(paths)} files are missing)",
                "extract them, or correct --features or the list",
            )
        self.files = [_described(found) for found in paths]
        first = self.files[0]
        self.feature_size = first.width if feature_size is None else feature_size
        for file in self.files:
            if len(file.paths) == 1 and file.num_crops > MOST_CROPS and not crops_first:
                problem = f"has {file.num_crops} crops of each of {file.num_snippets} snippets: are its crops first?"
                raise InputError(file.paths[0], problem, "swap the axes: numpy.save(path, array.swapaxes(0, 1))")
            if file.width != self.feature_size:
                wanted = f"--feature-size {feature_size}" if feature_size else f"{first.paths[0].name} {first.width}"
                raise InputError(
                    file.paths[0], f"features are {file.width} wide, {wanted}", "use one encoder's features"
                )
            if file.num_crops != first.num_crops:
                problem = f"has {file.num_crops} crops, {first.paths[0].name} {first.num_crops}"
                raise InputError(file.paths[0], problem, "use features of one kind")

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> Tensor:  # -> [T, N, D], float32
        """The features of one video.

        Raises:
            InputError: They hold NaN or infinity.
        """
        file = self.files[index]
        crops = [_loaded(path) for path in file.paths]
        for path, crop in zip(file.paths, crops, strict=True):
            finite = np.isfinite(crop)
            if not finite.all():
                row = int(np.argwhere(~finite)[0][0])
                problem = f"snippet {row} holds {'NaN' if np.isnan(crop[row]).any() else 'infinity'}"
                raise InputError(path, problem, "extract this video again")
        features = np.stack(crops, axis=1) if len(crops) > 1 or crops[0].ndim == 2 else crops[0]
        return torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))


def read_preprocessed(videos: FeatureVideos, *, num_segments: int) -> list[Tensor]:  # V x [N, L, D + 1]
    """Files that hold pooled snippets with their magnitudes already; their first axis is the crop.

    Raises:
        InputError: A file isn't (N, L, D + 1).
    """
    items = []
    for index, file in enumerate(videos.files):
        item = videos[index]
        if item.shape[1] != num_segments:
            problem = f"shape {tuple(item.shape)}, --preprocessed expects (crops, {num_segments}, width + 1)"
            raise InputError(file.paths[0], problem, "leave out --preprocessed")
        items.append(item)
    return items


def _paths_of(name: str, root: Path) -> tuple[Path, ...]:
    whole = root / f"{name}.npy"
    if whole.is_file():
        return (whole,)
    crops = []
    while (path := root / f"{name}__{len(crops)}.npy").is_file():
        crops.append(path)
    return tuple(crops)


def _described(paths: tuple[Path, ...]) -> FeatureFile:
    shapes = [_loaded(path, header_only=True).shape for path in paths]
    for path, shape in zip(paths, shapes, strict=True):
        if len(shape) not in ((2, 3) if len(paths) == 1 else (2,)) or 0 in shape:
            problem = "holds no snippet" if 0 in shape else f"shape {shape}, expected (snippets, crops, width)"
            raise InputError(path, problem, "extract this video again")
        if shape != shapes[0]:
            raise InputError(path, f"shape {shape}, the first crop's is {shapes[0]}", "extract this video again")
    snippets, *crops, width = shapes[0]
    return FeatureFile(paths, snippets, crops[0] if crops else len(paths), width)


def _loaded(path: Path, *, header_only: bool = False) -> np.ndarray:
    if path.stat().st_size == 0:
        raise InputError(path, "is an empty file", "extract this video again")
    try:
        array = np.load(path, mmap_mode="r" if header_only else None, allow_pickle=False)
    except NPY_ERRORS as error:
        raise InputError(path, f"is no NumPy array ({error})", "extract this video again") from None
    if not isinstance(array, np.ndarray):
        raise InputError(path, "is an archive of arrays", "save one array with numpy.save")
    if array.dtype.kind != "f":
        raise InputError(path, f"holds {array.dtype}, expected numbers with a fraction", "extract this video again")
    return array
