"""Filming a long video: rendered a few seconds at a time and encoded at once, so that memory doesn't grow with it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splavu.runtime.files import replacing
from splavu.synthetic.drawing.render import FPS, FRAME_SIZE, render
from splavu.synthetic.plans import Stage

if TYPE_CHECKING:
    from collections.abc import Iterator

    from av.container import OutputContainer
    from av.video.stream import VideoStream

CHUNK = 256
"""Frames rendered at a time."""
BIT_RATE = 600_000


def chunks(shot: Stage, num_frames: int, *, chunk: int = CHUNK) -> Iterator[np.ndarray]:  # -> [n, H, W, 3] uint8
    """The shot's frames in order; the pixels don't depend on how many are rendered at a time."""
    for start in range(0, num_frames, chunk):
        seconds = shot.seconds_offset + np.arange(start, min(start + chunk, num_frames)) / FPS
        yield render(shot.scene, shot.people, seconds).frames


def write_mp4(path: Path, frames: Iterable[np.ndarray]) -> None:  # of [n, H, W, 3] uint8
    """Encode batches of frames as they come; the file is there complete or not at all."""
    import av

    with (
        replacing(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"fflags": "+bitexact"}) as container,
    ):
        stream = mpeg4_stream(container, *FRAME_SIZE, bit_rate=BIT_RATE)
        for batch in frames:
            for picture in batch:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def mpeg4_stream(container: OutputContainer, width: int, height: int, *, bit_rate: int) -> VideoStream:
    """MPEG-4 part 2, which every build of FFmpeg writes; one thread, so the bytes repeat."""
    stream = container.add_stream("mpeg4", rate=FPS)
    stream.width, stream.height = width, height
    stream.pix_fmt = "yuv420p"
    stream.gop_size = 15
    stream.codec_context.thread_count = 1
    stream.codec_context.qmin, stream.codec_context.qmax = 2, 4
    stream.codec_context.bit_rate = bit_rate
    stream.codec_context.options = {"flags": "+bitexact"}
    return stream
