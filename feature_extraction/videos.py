"""Video files as batches of RGB frames, whichever library decodes them.

PyAV is the default. On the two real clips of the tests, and on H.264, MPEG-4, MJPEG and VP9 files of either colour
matrix and range, it and decord give the same pixels, bit for bit; `benchmarks/decode.py` finds PyAV a little faster on
one thread, which is what a decoding worker has. What decides is damaged files: PyAV reports each one the tests make,
while decord passes some truncated and overwritten files off as shorter or intact videos.

A reader would get the number of frames wrong: the container's count is a claim. It includes frames that an edit list
cuts off and frames that a truncated file lost. `len()` here is what really decodes.
"""

from __future__ import annotations

import importlib.util
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING

import numpy as np

from splavu.errors import UserError, nearest

if TYPE_CHECKING:
    from av.container import InputContainer

logger = logging.getLogger(__name__)

VIDEO_EXTENSIONS = frozenset(
    {".avi", ".mp4", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".3gp", ".ts"}
)


class VideoReader(ABC):
    """One open video file. Use it as a context manager, in one thread.

    Attributes:
        path: The file.
        fps: Average frames per second; 0 where the file does not say.
        expected_frames: The container's word on its length: free, and sometimes wrong.

    Raises:
        UserError: On opening or decoding, for a file that is missing, empty, of no video format, damaged or truncated.
    """

    path: Path
    fps: float
    expected_frames: int

    def __init__(self, path: Path) -> None:
        self.path = path
        self._length: int | None = None

    @abstractmethod
    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        """Every frame from the first on, [H, W, 3] uint8 RGB; None for a frame not in `wanted`."""

    def frames(self, batch_size: int = 64) -> Iterator[np.ndarray]:  # -> [n, H, W, 3] uint8 RGB
        """All frames in order, `batch_size` at a time (fewer in the last batch). Each call starts anew."""
        batch: list[np.ndarray] = []
        length = 0
        for frame in self._decode():
            batch.append(frame)
            if len(batch) == batch_size:
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

    def _checked(self, length: int) -> int:
        if length == 0:
            raise UserError(self.path, "no frame of this video decodes", "replace the file or leave it out")
        # Containers are off by a frame or two in good files (null frames of packed AVI, rounded durations).
        if self.expected_frames - length > max(2, self.expected_frames // 20):
            raise UserError(
                self.path,
                f"truncated: {length} of {self.expected_frames} frames decode",
                "replace the file or leave it out",
            )
        return length

    def _damaged(self, index: int, reason: str) -> UserError:
        return UserError(self.path, f"damaged at frame {index} ({reason})", "replace the file or leave it out")

    def close(self) -> None:  # noqa: B027  a reader need not hold anything open
        """Release the file."""

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PyAVReader(VideoReader):
    """FFmpeg through PyAV, one thread: several videos are decoded at once instead (`extraction`)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._container: InputContainer | None = self._open()
        stream = self._container.streams.video[0]
        self.fps = float(stream.average_rate or 0)
        self.expected_frames = stream.frames or round(_seconds(stream) * self.fps)

    def _open(self) -> InputContainer:
        import av

        try:
            container = av.open(str(self.path))
        except (av.FFmpegError, OSError) as error:
            raise _unreadable(self.path, error) from error
        if not container.streams.video:
            container.close()
            raise UserError(self.path, "holds no video", "replace the file or leave it out")
        container.streams.video[0].thread_type = "NONE"
        return container

    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        import av
        from av.video.reformatter import VideoReformatter

        # A reformatter of our own keeps FFmpeg's conversion context; a frame's own would be made for each frame.
        convert = VideoReformatter().reformat
        container = self._container or self._open()
        self._container = None
        size: dict[str, int] = {}
        index = cut_off = 0
        with container:
            try:
                for packet in container.demux(container.streams.video[0]):
                    cut_off += packet.is_discard  # outside the edit list: decoded, never shown
                    for frame in packet.decode():
                        if frame.is_corrupt:
                            raise self._damaged(index, "a corrupt frame")
                        # Streams may change their size midway; all frames of a video come in that of the first.
                        size = size or {"width": frame.width, "height": frame.height}
                        if wanted is None or index in wanted:
                            yield convert(frame, format="rgb24", **size).to_ndarray()
                        else:
                            yield None
                        index += 1
            except (av.FFmpegError, OSError) as error:
                raise self._damaged(index, _reason(error)) from error
        self.expected_frames -= cut_off if self._length is None else 0
        self._length = self._checked(index)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


class DecordReader(VideoReader):
    """decord. It repeats frames it can't decode; here that ends the video, or fails it if too many are missing."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        reader = self._open()
        self.fps = float(reader.get_avg_fps())
        self.expected_frames = len(reader)

    def _open(self):  # -> decord.VideoReader
        import decord

        if not self.path.is_file():
            raise _unreadable(self.path, "no such file")
        try:
            # The smallest tolerance: an error at the first repeated frame, instead of silence.
            return decord.VideoReader(str(self.path), ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
        except (decord.DECORDError, RuntimeError) as error:
            raise _unreadable(self.path, error) from error

    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        import decord

        reader = self._open()
        index = 0
        for index in range(len(reader)):
            try:
                frame = reader.next()
            except decord._ffi.base.DECORDLimitReachedError:  # the rest are repeats
                break
            except (decord.DECORDError, StopIteration) as error:
                raise self._damaged(index, _reason(error)) from error
            yield frame.asnumpy() if wanted is None or index in wanted else None
        else:
            index = len(reader)
        self._length = self._checked(index)


BACKENDS = MappingProxyType({"pyav": ("av", PyAVReader), "decord": ("decord", DecordReader)})
"""Name -> (module to import, reader); the first that is installed is the default."""


def pick_backend(name: str | None = None) -> str:
    """`name` if it can be used; by default PyAV, or decord (with a warning) where PyAV is not installed.

    Raises:
        UserError: The name is unknown, or that library is not installed.
    """
    if name is not None and name not in BACKENDS:
        raise UserError(f"backend '{name}'", "no such video backend", nearest(name, BACKENDS))
    candidates = list(BACKENDS) if name is None else [name]
    usable = [candidate for candidate in candidates if importlib.util.find_spec(BACKENDS[candidate][0])]
    if not usable:
        modules = " or ".join(BACKENDS[candidate][0] for candidate in candidates)
        raise UserError(
            f"backend '{name or 'default'}'",
            f"{modules} is not installed",
            "pip install av (all platforms) or decord (Linux on x86-64), or name the other with --backend",
        )
    if usable[0] != candidates[0]:
        logger.warning(
            "PyAV is not installed; decoding with %s, which does not notice every damaged file (pip install av)",
            usable[0],
        )
    return usable[0]


def backend_version(name: str) -> str:
    """For a store's provenance: `"pyav 18.1.0"`."""
    return f"{name} {metadata.version(BACKENDS[name][0])}"


def open_video(path: str | Path, backend: str | None = None) -> VideoReader:
    """Open `path` with `backend` ('pyav' or 'decord'; None as `pick_backend` says)."""
    return BACKENDS[pick_backend(backend)][1](Path(path))


def list_videos(folder: str | Path) -> list[Path]:
    """All video files in `folder` and below, sorted.

    Raises:
        UserError: There is no such folder, or no video in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(folder, "no such folder", "give the folder that holds the videos")
    videos = sorted(path for path in folder.rglob("*") if path.suffix.lower() in VIDEO_EXTENSIONS and path.is_file())
    if not videos:
        raise UserError(folder, "no video in this folder", f"known extensions: {' '.join(sorted(VIDEO_EXTENSIONS))}")
    return videos


def _seconds(stream) -> float:
    """Length of a stream by its own account, 0 if it gives none (Matroska keeps it in a tag)."""
    if stream.duration:
        return float(stream.duration * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def _unreadable(path: Path, error: object) -> UserError:
    if not path.is_file():
        return UserError(path, "no such video", "check the path")
    problem = "the file is empty" if path.stat().st_size == 0 else f"not a readable video ({_reason(error)})"
    return UserError(path, problem, "replace the file or leave it out")


def _reason(error: object) -> str:
    return str(getattr(error, "strerror", None) or error).strip().splitlines()[0][:120]
