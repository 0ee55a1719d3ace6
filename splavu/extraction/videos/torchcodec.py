"""torchcodec: FFmpeg through PyTorch's own decoder, on the CPU.

Note: the wheel holds no FFmpeg. Its shared libraries (libavcodec and the like, versions 4 to 8) must
be on the machine, and the wheel must be of torch's kind: those for CUDA do not load beside a torch for the CPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splavu.errors import UserError
from splavu.extraction.videos.files import first_line, require_file, unreadable
from splavu.extraction.videos.reader import VideoReader

if TYPE_CHECKING:
    from torchcodec.decoders import VideoDecoder

CHUNK = 16
"""Frames decoded at a time."""


class TorchCodecReader(VideoReader):
    """torchcodec on one thread; opening reads the whole file once to count its frames, without decoding them.

    It mirrors no picture, turns it by right angles only, and takes full range for limited range unless the pixel format
    itself says so.
    """

    _remedy = "try --backend pyav, replace the file or leave it out"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        facts = self._take_facts()
        if facts is not None:
            self._refuse_unless(not facts.turning or facts.is_right_angle, "is turned or mirrored")
            is_seen = not facts.is_full_range or facts.pixels.startswith("yuvj")
            self._refuse_unless(is_seen, f"has full range ({facts.pixels})")
        self._stream = facts.stream if facts else None
        self._first = facts.leading if facts else 0  # its index counts packets, also those that can't be decoded
        self._decoder: VideoDecoder | None = self._open()
        metadata = self._decoder.metadata
        self.fps = float(metadata.average_fps or 0)
        # Without PyAV: the file as it is, or what the header says it was before it was truncated (AVI, MP4).
        claimed = max(metadata.num_frames or 0, metadata.num_frames_from_header or 0)
        self.expected_frames = self._least_frames = facts.least_frames if facts else claimed

    @classmethod
    def check(cls) -> None:
        try:
            import torchcodec.decoders  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:
            raise UserError(
                "backend 'torchcodec'",
                f"is installed but does not load ({first_line(error)})",
                "install FFmpeg's shared libraries (4 to 8) and the torchcodec that goes with your torch, or use pyav",
            ) from error

    def _open(self) -> VideoDecoder:
        from torchcodec.decoders import VideoDecoder

        require_file(self.path)
        try:
            decoder = VideoDecoder(
                self.path,
                stream_index=self._stream,
                dimension_order="NHWC",
                num_ffmpeg_threads=1,
                seek_mode="exact",
            )
        except (RuntimeError, ValueError) as error:
            raise unreadable(self.path, error) from error
        self._checked_size(decoder.metadata.width or 0, decoder.metadata.height or 0)
        return decoder

    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        decoder = self._decoder or self._open()
        self._decoder = None
        length = len(decoder)
        for start in range(self._first, length, CHUNK):
            stop = min(start + CHUNK, length)
            try:
                chunk = decoder.get_frames_in_range(start, stop).data.numpy()  # [n, H, W, 3]
            except (RuntimeError, ValueError, IndexError) as error:
                raise self._damaged(start - self._first, error) from error
            for index, frame in enumerate(chunk, start - self._first):
                yield frame if wanted is None or index in wanted else None
        self._length = self._checked(length - self._first)

    def close(self) -> None:
        self._decoder = None
