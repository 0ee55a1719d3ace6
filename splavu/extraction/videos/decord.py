"""decord. It repeats frames it can't decode; here that ends the video, or fails it if too many are missing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from splavu.extraction.videos.files import require_file, unreadable
from splavu.extraction.videos.reader import VideoReader


class DecordReader(VideoReader):
    """decord on one thread. Its FFmpeg 4 turns no mirrored picture, and is off in the chroma of more than 8 bits."""

    _remedy = "try --backend pyav, replace the file or leave it out"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        facts = self._take_facts()
        if facts is not None:
            self._refuse_unless(facts.num_streams == 1, f"holds {facts.num_streams} videos")
            self._refuse_unless(facts.bits <= 8, f"has {facts.bits} bits a sample ({facts.pixels})")
            is_turned_alike = "mov" in facts.form and facts.is_right_angle and facts.pixels in ("yuv420p", "yuvj420p")
            self._refuse_unless(not facts.turning or is_turned_alike, "is turned or mirrored")
        reader = self._open()
        self.fps = float(reader.get_avg_fps())
        self.expected_frames = facts.least_frames if facts else len(reader)
        self._least_frames = self.expected_frames

    def _open(self):  # -> decord.VideoReader
        decord = _decord()
        require_file(self.path)
        try:
            # The smallest tolerance: an error at the first repeated frame, instead of silence.
            return decord.VideoReader(str(self.path), ctx=decord.cpu(0), num_threads=1, fault_tol=1e-9)
        except (decord.DECORDError, RuntimeError) as error:
            raise unreadable(self.path, error) from error

    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        decord = _decord()
        reader = self._open()
        index = 0
        for index in range(len(reader)):
            try:
                frame = reader.next()
                self._checked_size(frame.shape[1], frame.shape[0])
                self._refuse_unless(frame.shape[2] == 3, "has a width that it can't turn")
            except decord._ffi.base.DECORDLimitReachedError:  # the rest are repeats
                break
            except (decord.DECORDError, StopIteration) as error:
                raise self._damaged(index, error) from error
            yield frame.asnumpy() if wanted is None or index in wanted else None
        else:
            index = len(reader)
        self._length = self._checked(index)


def _decord():  # -> the module
    """Loaded after OpenCV where there is one: the other way round, its zlib keeps OpenCV from reading PNG files."""
    with contextlib.suppress(ImportError):
        import cv2  # noqa: F401
    import decord

    return decord
