"""Frames and times of each reader against those of the `ffmpeg` command: `python benchmarks/decoding.py FOLDER`.

One line a video, in levels of 255: the mean and the largest difference of a pixel, or why a reader refuses the file.
Beside the readers stands PyAV's own conversion, `frame.to_ndarray(format="rgb24")`, which knows no display matrix.
"times" is the largest difference of a frame's presentation time to ffmpeg's.

    python benchmarks/decoding.py ../shared/cases
    python benchmarks/decoding.py --patterns    # a saturated test picture in four matrices, two ranges, 8 and 10 bits

Needs `ffmpeg` on the path, or `pip install imageio-ffmpeg`, and says so where it finds neither.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import importlib.util
import itertools
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from splavu.errors import UserError
from splavu.extraction.videos import BACKENDS, backend_version, list_videos, open_video, usable_backends
from splavu.extraction.videos.streams import open_container
from splavu.runtime import cli

MATRICES = ("unknown", "smpte170m", "bt709", "bt2020nc")
RANGES = ("tv", "pc")
FORMATS = ("yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le")
PPM = re.compile(rb"P6\n(\d+) (\d+)\n255\n")


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="of videos")
    parser.add_argument("--patterns", action="store_true", help="make test pictures and compare on them")
    parser.add_argument("--readers", nargs="+", choices=BACKENDS, help="default: all that work here")
    args = parser.parse_args(argv)
    if (args.folder is None) is not args.patterns:
        raise UserError("arguments", "FOLDER or --patterns expected", "see --help")
    ffmpeg = _ffmpeg()
    if ffmpeg is None:
        print("skipped: no ffmpeg to compare with; install it, or pip install imageio-ffmpeg")
        return 0
    readers = args.readers or usable_backends()
    print(subprocess.run([ffmpeg, "-version"], capture_output=True, text=True, check=True).stdout.splitlines()[0])
    print(", ".join(backend_version(reader) for reader in readers))
    print("| " + " | ".join(["video", "frames", *readers, "times", "PyAV's own conversion"]) + " |")
    print("|" + "---|" * (len(readers) + 4))
    with tempfile.TemporaryDirectory() as temporary:
        for path in _patterns(ffmpeg, Path(temporary)) if args.patterns else list_videos(args.folder):
            print("| " + " | ".join(_row(ffmpeg, path, readers)) + " |", flush=True)
    return 0


def _ffmpeg() -> str | None:
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        found = imageio_ffmpeg.get_ffmpeg_exe()
    return found


def _patterns(ffmpeg: str, folder: Path) -> Iterator[Path]:
    """Videos without loss; each claims a matrix and a range, and what it shows follows from that."""
    for matrix, span, pixels in itertools.product(MATRICES, RANGES, FORMATS):
        path = folder / f"{matrix}_{span}_{pixels}.mp4"
        picture = f"testsrc2=s=128x96:r=25:d=0.2,format={pixels},setparams=colorspace={matrix}:range={span}"
        subprocess.run(
            [ffmpeg, "-v", "error", "-f", "lavfi", "-i", picture, "-c:v", "libx264", "-qp", "0", str(path)], check=True
        )
        yield path


def _row(ffmpeg: str, path: Path, readers: Sequence[str]) -> list[str]:
    expected = list(_frames(ffmpeg, path))
    if not expected:
        return [path.name, "ffmpeg shows none"]
    cells = [_compared(expected, lambda reader=reader: _shown(path, reader)) for reader in readers]
    try:
        with open_video(path) as video:
            found, times = video.times, np.array(_times(ffmpeg, path))
        moved = "other frames" if len(found) != len(times) else f"{1000 * np.abs(found - times).max():.0f} ms"
    except UserError as error:
        moved = error.problem
    return [path.name, str(len(expected)), *cells, moved, _compared(expected, lambda: _own_conversion(path))]


def _compared(expected: Sequence[np.ndarray], decode: Callable[[], Iterator[np.ndarray]]) -> str:
    try:
        found = list(decode())
    except UserError as error:
        return f"refused: {error.problem}"
    if len(found) != len(expected):
        return f"{len(found)} frames"
    if found[0].shape != expected[0].shape:
        return f"another size: {found[0].shape[1]} x {found[0].shape[0]}"
    gaps = [np.abs(one.astype(int) - other) for one, other in zip(found, expected, strict=True)]
    return f"{np.mean([gap.mean() for gap in gaps]):.2f} ({max(gap.max() for gap in gaps)})"


def _shown(path: Path, reader: str) -> Iterator[np.ndarray]:
    with open_video(path, reader) as video:
        for batch in video.frames():
            yield from batch


def _own_conversion(path: Path) -> Iterator[np.ndarray]:
    container, stream = open_container(path)
    with container:
        for frame in container.decode(stream):
            yield frame.to_ndarray(format="rgb24")


def _frames(ffmpeg: str, path: Path) -> Iterator[np.ndarray]:
    """What `ffmpeg` shows of a video, every frame once."""
    output = shlex.split("-fps_mode passthrough -f image2pipe -c:v ppm -pix_fmt rgb24 -")
    data = subprocess.run([ffmpeg, "-v", "quiet", "-nostdin", "-i", str(path), *output], capture_output=True).stdout
    place = 0
    while head := PPM.match(data, place):
        width, height = int(head[1]), int(head[2])
        yield np.frombuffer(data, np.uint8, 3 * width * height, head.end()).reshape(height, width, 3)
        place = head.end() + 3 * width * height


def _times(ffmpeg: str, path: Path) -> list[float]:
    output = shlex.split("-an -fps_mode passthrough -enc_time_base 1/1000000 -c:v rawvideo -f framehash -")
    command = [ffmpeg, "-v", "quiet", "-nostdin", "-i", str(path), *output]
    lines = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
    unit = next((line.split()[-1] for line in lines if line.startswith("#tb 0:")), "1/1").split("/")
    return [int(line.split(",")[2]) * int(unit[0]) / int(unit[1]) for line in lines if not line.startswith("#")]


if __name__ == "__main__":
    cli.run(main)
