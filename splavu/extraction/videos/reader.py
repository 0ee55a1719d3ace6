"""What every video reader does: give frames in order, pick some of them, count them, and name a damaged file.

Note: the container's number of frames is a claim. It includes frames that an edit list cuts off and frames that a
truncated file lost, and many files have none. `len()` here is what really decodes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import numpy as np

from splavu.errors import UserError
from splavu.extraction.videos.files import first_line
from splavu.extraction.videos.streams import Facts, inspect
from splavu.runtime import extras

MAX_PIXELS = 2**26
"""Of one frame: twice as many as 8K video has. A damaged header may claim frames that fill the memory."""
MAX_BATCH_BYTES = 2**29
"""Of the frames that are held for a batch."""


class VideoReader(ABC):
    """One open video file. Use it as a context manager, in one thread.

    Attributes:
        path: The file.
        fps: Average frames per second; 0 where the file does not say.
        expected_frames: A guess at the number of frames: free, and sometimes wrong.

    Raises:
        UserError: On opening or decoding, for a file that is missing, empty, of no video format, damaged or truncated.
    """

    path: Path
    fps: float
    expected_frames: int
    _remedy = "replace the file or leave it out"

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length: int | None = None
        self._least_frames = 0  # fewer than these are a loss; 0 where nobody knows
        self._times: np.ndarray | None = None  # [n]
        self._duration = 0.0

    @classmethod  # noqa: B027  most libraries work wherever they are installed
    def check(cls) -> None:
        """Raise UserError if the library is installed but can't work on this machine."""

    @abstractmethod
    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        """Every frame from the first on, [H, W, 3] uint8 RGB; None for a frame not in `wanted`."""

    def frames(self, batch_size: int = 64) -> Iterator[np.ndarray]:  # -> [n, H, W, 3] uint8 RGB
        """All frames in order, `batch_size` at a time. Each call starts at the first frame.

        The last batch is shorter, and so is every batch of frames too large to be held at once (`MAX_BATCH_BYTES`: 86
        frames of 1080 lines, 21 of 4K).
        """
        batch: list[np.ndarray] = []
        length = 0
        for frame in self._decode():
            batch.append(frame)
            if len(batch) == max(1, min(batch_size, MAX_BATCH_BYTES // frame.nbytes)):
                yield np.stack(batch)
                length, batch = length + len(batch), []
        if batch:
            yield np.stack(batch)
        self._length = self._checked(length + len(batch))

    def get(self, indices: Sequence[int]) -> np.ndarray:  # [n] -> [n, H, W, 3] uint8 RGB
        """The frames at `indices`, in that order, repeats allowed. Decodes up to the last of them, so it is exact.

        Raises:
            IndexError: An index is negative or past the last frame that decodes.
        """
        wanted = frozenset(int(index) for index in indices)
        if not wanted or min(wanted) < 0:
            raise IndexError(f"{self.path}: frame indices {list(indices)}")
        found: dict[int, np.ndarray] = {}
        for index, frame in enumerate(self._decode(wanted)):
            if frame is not None:
                found[index] = frame
            if len(found) == len(wanted):
                return np.stack([found[int(index)] for index in indices])
        raise IndexError(f"{self.path}: frame {max(wanted)} of {len(self)}")

    def __len__(self) -> int:
        """Number of frames that decode. Costs a pass over the video unless `frames()` has been read to its end."""
        if self._length is None:
            self._length = self._checked(sum(1 for _ in self._decode(frozenset())))
        return self._length

    @property
    def times(self) -> np.ndarray:  # -> [n] float64
        """When each frame is shown: seconds from the beginning of the file, never falling. Costs what `len()` does.

        Raises:
            UserError: Nothing says when.
        """
        len(self)
        if self._times is None or len(self._times) != len(self) or not np.isfinite(self._times).all():
            raise UserError(
                self.path, "the times of its frames are unknown", "use --backend pyav, or convert it to .mp4"
            )
        return self._times

    @property
    def duration(self) -> float:
        """Seconds, from the beginning of the file to the end of the last frame. Raises what `times` does."""
        return self._duration if len(self.times) else 0.0

    def _checked(self, length: int) -> int:
        if length == 0:
            raise UserError(self.path, "no frame of this video decodes", self._remedy)
        # Good files lack a frame or two as well: null frames of packed AVI.
        if self._least_frames - length > max(2, self._least_frames // 20):
            self._refuse(f"damaged: {length} of {self._least_frames} frames decode")
        return length

    def _take_facts(self) -> Facts | None:
        """What PyAV finds in the file, with the times of its frames; None without PyAV. For readers by other libraries.

        Raises:
            UserError: The file is damaged or truncated.
        """
        if not extras.is_installed("av"):
            return None
        facts = inspect(self.path)
        self._times, self._duration = facts.times, facts.duration
        return facts

    def _refuse_unless(self, is_shown_alike: bool, what: str) -> None:
        """Refuse a file that this library would not show as FFmpeg does."""
        if not is_shown_alike:
            name = type(self).__name__.removesuffix("Reader").lower()
            raise UserError(self.path, f"{what}: {name} would not show it as FFmpeg does", "use --backend pyav for it")

    def _refuse(self, problem: str) -> None:
        """Raise UserError if there is a problem."""
        if problem:
            raise UserError(self.path, problem, self._remedy)

    def _checked_size(self, width: int, height: int) -> None:
        if width * height > MAX_PIXELS:
            raise UserError(
                self.path, f"its frames are {width} x {height} pixels by its header", "replace the file or leave it out"
            )

    def _damaged(self, index: int, reason: object) -> UserError:
        return UserError(self.path, f"damaged at frame {index} ({first_line(reason)})", self._remedy)

    def close(self) -> None:  # noqa: B027  a reader need not hold anything open
        """Release the file."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
