"""NVIDIA DALI: decoding by the graphics card's video engine (NVDEC), or by the processor where there is none.

Note: frames come back to host memory, like those of every other reader, because the transforms start there. Pixels
differ from FFmpeg's by 1 to 2 levels of 255 on average and by 50 at sharp edges, since chroma is interpolated and
colours are converted in another way: a store must not mix the two, and records which it holds. DALI's processor variant
knows VP8, VP9 and MJPEG only, and the matrix of BT.601 only.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from splavu.errors import UserError
from splavu.extraction.videos.files import first_line, require_file, unreadable
from splavu.extraction.videos.reader import VideoReader
from splavu.runtime import extras

if TYPE_CHECKING:
    from nvidia.dali import Pipeline

Device = Literal["cpu", "gpu"]

SEQUENCE = 32
"""Frames decoded at a time."""


def pipeline_arguments(device: Device, device_id: int = 0) -> dict[str, Any]:
    """How a pipeline runs: one video, one thread, one sequence ahead, so that memory stays bounded."""
    return {
        "batch_size": 1,
        "num_threads": 1,
        "device_id": device_id if device == "gpu" else None,
        "prefetch_queue_depth": 1,
    }


def reader_arguments(path: Path, *, sequence_length: int, device: Device) -> dict[str, Any]:
    """What the reading operator does: the frames of one file in order, without a gap or an overlap.

    The last sequence is filled up by repeating its last frame, since DALI would otherwise drop it.
    """
    return {
        "name": "video",
        "device": device,
        "filenames": [str(path)],
        "sequence_length": sequence_length,
        "step": sequence_length,
        "stride": 1,
        "random_shuffle": False,
        "pad_mode": "edge",
        "enable_timestamps": True,
    }


def valid_frames(sequence: int, num_frames: int, *, sequence_length: int = SEQUENCE) -> int:
    """How many frames of the `sequence`th sequence are the video's and not its filling."""
    return max(0, min(sequence_length, num_frames - sequence * sequence_length))


class DaliReader(VideoReader):
    """DALI on the current CUDA device, or on one thread of the processor."""

    _remedy = "try --backend pyav, replace the file or leave it out"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        require_file(path)
        facts = self._take_facts()
        if facts is not None:
            self._refuse_unless(facts.num_streams == 1, f"holds {facts.num_streams} videos")
            self._refuse_unless(not facts.turning, "is turned or mirrored")
            self._refuse_unless(not facts.leading, "begins within a group of pictures")
            self._refuse_unless(facts.bits <= 8, f"has {facts.bits} bits a sample ({facts.pixels})")
            self._refuse_unless(facts.is_601, f"has colours of another matrix than BT.601 (number {facts.matrix})")
        # Sequences of one frame: as many as the file's index has frames.
        counting = self._pipeline(1)
        self.expected_frames = int(counting.reader_meta("video")["epoch_size"])
        self._least_frames = facts.least_frames if facts else self.expected_frames
        self.fps = 0.0
        if self.expected_frames > 1:
            first, second = (self._run(counting, index)[1][0] for index in (0, 1))
            self.fps = float(1 / (second - first)) if second > first else 0.0

    @classmethod
    def check(cls) -> None:
        try:
            import nvidia.dali.fn  # noqa: F401
        except (ImportError, OSError, RuntimeError) as error:
            raise UserError(
                "backend 'dali'",
                f"is installed but does not load ({first_line(error)})",
                f"{extras.remedy('gpu')} on a machine with an NVIDIA driver, or use pyav",
            ) from error

    def _pipeline(self, sequence_length: int) -> Pipeline:
        from nvidia.dali import Pipeline, fn

        device = _device()
        try:
            pipeline = Pipeline(**pipeline_arguments(device, _device_id()))
            with pipeline:
                arguments = reader_arguments(self.path, sequence_length=sequence_length, device=device)
                pipeline.set_outputs(*fn.experimental.readers.video(**arguments))
            pipeline.build()
        except (RuntimeError, ValueError) as error:
            raise unreadable(self.path, _cause(error)) from error
        return pipeline

    def _run(self, pipeline: Pipeline, index: int) -> tuple[np.ndarray, np.ndarray]:  # -> [n, H, W, 3], [n] seconds
        try:
            frames, seconds = (output.as_cpu().as_array()[0] for output in pipeline.run())
        except (RuntimeError, ValueError, StopIteration) as error:
            raise self._damaged(index, _cause(error)) from error
        self._checked_size(frames.shape[2], frames.shape[1])
        return frames, seconds

    def _decode(self, wanted: frozenset[int] | None = None) -> Iterator[np.ndarray | None]:
        pipeline = self._pipeline(SEQUENCE)
        for sequence in range(pipeline.reader_meta("video")["epoch_size"]):
            start = sequence * SEQUENCE
            frames, _ = self._run(pipeline, start)
            frames = frames[: valid_frames(sequence, self.expected_frames)].copy()  # DALI writes the next over these
            for index, frame in enumerate(frames, start):
                yield frame if wanted is None or index in wanted else None
        self._length = self._checked(self.expected_frames)


@functools.cache
def _device() -> Device:
    import torch

    return "gpu" if torch.cuda.is_available() else "cpu"


def _device_id() -> int:
    import torch

    return torch.cuda.current_device() if torch.cuda.is_available() else 0


def _cause(error: Exception) -> str:
    """The line of DALI's report that says what is wrong; the lines before it say where in the pipeline."""
    lines = [line.strip() for line in str(error).splitlines()]
    after = lines.index("encountered:") + 1 if "encountered:" in lines else 0
    return next((line for line in lines[after:] if line), type(error).__name__)
