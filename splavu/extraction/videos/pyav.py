"""FFmpeg through PyAV."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splavu.errors import UserError
from splavu.extraction.videos.reader import VideoReader, require_file, unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video import VideoStream


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

        require_file(self.path)
        try:
            container = av.open(str(self.path), metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise unreadable(self.path, error) from error
        streams = container.streams.video
        if not streams or streams[0].codec_context is None:
            container.close()
            problem = "its video is in a format that FFmpeg has no decoder for" if streams else "holds no video"
            raise UserError(self.path, problem, "replace the file or leave it out")
        streams[0].thread_type = "NONE"
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
                        if not size:
                            self._checked_size(frame.width, frame.height)
                            size = {"width": frame.width, "height": frame.height}
                        if wanted is None or index in wanted:
                            yield convert(frame, format="rgb24", **size).to_ndarray()
                        else:
                            yield None
                        index += 1
            except (av.FFmpegError, OSError, ValueError) as error:
                raise self._damaged(index, error) from error
        self.expected_frames -= cut_off if self._length is None else 0
        self._length = self._checked(index)

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None


def _seconds(stream: VideoStream) -> float:
    """Length of a stream by its own account, 0 if it gives none (Matroska keeps it in a tag)."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return 0.0
    duration = 3600 * hours + 60 * minutes + seconds
    return duration if math.isfinite(duration) else 0.0
