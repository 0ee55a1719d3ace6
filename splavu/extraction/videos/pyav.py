"""FFmpeg through PyAV: the pixels and times of the `ffmpeg` command, for whichever PyAV is installed.

Note: colours are converted by FFmpeg's own `scale` filter, as that command does it. PyAV's `reformat` takes every
video for BT.601 before 17.0, and sets the chroma of 10-bit 4:2:0 video wrongly from there on (docs/decoding.md).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splavu.extraction.videos.reader import VideoReader
from splavu.extraction.videos.streams import (
    Account,
    frame_times,
    frames_per_second,
    open_container,
    turning_filters,
    unknown_colours,
)

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.filter import Graph
    from av.video import VideoFrame, VideoStream


class PyAVReader(VideoReader):
    """FFmpeg through PyAV, one thread: several videos are decoded at once instead (`extraction`)."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._opened: tuple[InputContainer, VideoStream] | None = open_container(path)
        container, stream = self._opened
        self.fps = frames_per_second(stream)
        length = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1e6
        self.expected_frames = stream.frames or max(0, round(length * self.fps))

    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        import av

        container, stream = self._opened or open_container(self.path)
        self._opened = None
        account, picture = Account(container, stream), _Picture()
        stamps: list[float | None] = []
        unit, is_cut_off = float(stream.time_base or 1), False
        with container:
            try:
                for packet in container.demux(*account.streams):
                    if not account.add(packet):
                        continue
                    for frame in account.decoded(packet):
                        if is_cut_off or (frame.is_corrupt and not account.is_broadcast):
                            raise self._damaged(len(stamps), "a corrupt frame")
                        if frame.is_corrupt:  # the last picture of a recording, if none follows
                            is_cut_off = True
                            continue
                        if not stamps:
                            self._checked_size(frame.width, frame.height)
                            self._refuse(unknown_colours(frame))
                        account.note(frame)
                        is_wanted = wanted is None or len(stamps) in wanted
                        stamps.append(None if frame.pts is None else frame.pts * unit)
                        yield picture.levels(frame) if is_wanted else None
            except (av.FFmpegError, OSError, ValueError) as error:
                raise self._damaged(len(stamps), error) from error
            self._refuse(account.missing())
            self._least_frames = account.least_frames()
            self._times, self._duration = frame_times(stamps, start=account.start(), fps=self.fps)
        self._length = self._checked(len(stamps))

    def close(self) -> None:
        if self._opened is not None:
            self._opened[0].close()
            self._opened = None


class _Picture:
    """Frames turned and converted to RGB, all to the size of the first: streams may change theirs midway."""

    def __init__(self) -> None:
        self._turning: tuple[tuple[str, str], ...] = ()
        self._form: tuple[object, ...] = ()
        self._graph: Graph | None = None
        self._size = ""

    def levels(self, frame: VideoFrame) -> np.ndarray:  # -> [H, W, 3] uint8 RGB
        if frame.key_frame or self._graph is None:
            self._turning = turning_filters(frame)
        form = (frame.width, frame.height, frame.format.name, int(frame.colorspace), int(frame.color_range))
        form = (*form, self._turning)
        if form != self._form:
            self._form, self._graph = form, _graph(*form, self._size)
        try:
            self._graph.vpush(frame)
            converted = self._graph.vpull()
        except BaseException:
            _KEPT.form = None
            raise
        self._size = self._size or f"{converted.width}:{converted.height}"
        return converted.to_ndarray()


_KEPT = threading.local()
"""The last graph of each thread and its form: one starts a thread of its own, which takes as long as a few frames."""


def _graph(
    width: int, height: int, pixels: str, matrix: int, span: int, turning: tuple[tuple[str, str], ...], size: str
) -> Graph:
    """The filters from a frame of this form to RGB of a `size` ("640:480"; "" leaves it)."""
    from av.filter import Graph

    source = f"video_size={width}x{height}:pix_fmt={pixels}:time_base=1/1000:colorspace={matrix}:range={span}"
    # Where a picture is turned, FFmpeg chooses before or after which filter to convert it.
    scale = () if turning and not size else (("scale", ":".join(filter(None, (size, "threads=1")))),)
    chain = (("buffer", source), *turning, *scale, ("format", "rgb24"), ("buffersink", ""))
    if getattr(_KEPT, "form", None) != chain:
        graph = Graph()
        graph.link_nodes(*(graph.add(name, arguments or None) for name, arguments in chain)).configure()
        _KEPT.graph, _KEPT.form = graph, chain
    return _KEPT.graph
