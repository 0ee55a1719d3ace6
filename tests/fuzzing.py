"""Corrupted videos and images, fed to every reader in a process of its own: `python tests/fuzzing.py --count 500`.

Small good files are made, and damaged by a seed. Each damaged file must be decoded or reported in one line; any other
exception, a process that dies and one that is silent for too long are failures, listed by file and damage.

Note: "decoded" is no fault. A bit flipped within a picture gives another picture, which no reader can detect.

    python tests/fuzzing.py --count 500 --readers pyav decord image --keep /tmp/fuzz
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import os
import random
import struct
import sys
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np

from splavu.errors import UserError
from splavu.extraction.images import read_image
from splavu.extraction.videos import BACKENDS, open_video, pick_backend

IMAGES = "image"
"""The reader of still images, beside the video backends."""

SIZE = (96, 64)
"""Width and height of the good files."""

VIDEOS = {  # name -> (encoder, pixel format, options of the container)
    "mpeg4.avi": ("mpeg4", "yuv420p", {}),
    "mjpeg.avi": ("mjpeg", "yuvj420p", {}),
    "h264.mp4": ("libx264", "yuv420p", {}),
    "streamed.mp4": ("libx264", "yuv420p", {"movflags": "faststart"}),
    "vp9.webm": ("libvpx-vp9", "yuv420p", {}),
}
PICTURES = ("photo.jpg", "picture.png")

MEMORY = 6 * 2**30
"""Bytes of address space that a reader's process may take: a file that claims to be huge must not get it."""


NUM_FRAMES = 40
"""Of each good video."""


def write_good_files(folder: Path, *, num_frames: int = NUM_FRAMES) -> list[Path]:
    """One small file of every format: a moving ramp under noise."""
    import av
    import cv2

    generator = np.random.default_rng(0)
    ramp = np.linspace(0, 160, SIZE[0])[None, :, None].repeat(SIZE[1], 0).repeat(3, 2)  # [H, W, 3]

    def picture(index: int) -> np.ndarray:
        noise = generator.integers(0, 40, ramp.shape)
        return np.clip(np.roll(ramp, 2 * index, axis=1) + noise + 20 * np.arange(3), 0, 255).astype(np.uint8)

    for name, (codec, pixels, options) in VIDEOS.items():
        with av.open(str(folder / name), "w", options=options) as container:
            stream = container.add_stream(codec, rate=25)
            (stream.width, stream.height), stream.pix_fmt = SIZE, pixels
            for index in range(num_frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture(index), format="rgb24")))
            container.mux(stream.encode())
    for name in PICTURES:
        cv2.imwrite(str(folder / name), picture(0))
    return [folder / name for name in (*VIDEOS, *PICTURES)]


def _truncated(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(1, len(data))]


def _flipped(data: bytes, rng: random.Random, start: int, stop: int, most: int) -> bytes:
    damaged = bytearray(data)
    for _ in range(rng.randint(1, most)):
        damaged[rng.randrange(start, stop)] ^= 1 << rng.randrange(8)
    return bytes(damaged)


def _flipped_head(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, 0, min(512, len(data)), 16)


def _flipped_body(data: bytes, rng: random.Random) -> bytes:
    return _flipped(data, rng, min(512, len(data) // 2), len(data), 64)


def _flipped_tail(data: bytes, rng: random.Random) -> bytes:  # where AVI and MP4 keep their index
    return _flipped(data, rng, max(0, len(data) - 1024), len(data), 16)


def _overwritten(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.randint(1, max(1, len(data) // 5))
    return data[:start] + rng.randbytes(length) + data[start + length :]


def _zeroed(data: bytes, rng: random.Random) -> bytes:
    start, length = rng.randrange(len(data)), rng.randint(1, max(1, len(data) // 5))
    return data[:start] + bytes(length) + data[start + length :]


def _piece_lost(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[:start] + data[start + rng.randint(1, max(1, len(data) // 5)) :]


def _piece_twice(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    return data[: start + rng.randint(1, max(1, len(data) // 5))] + data[start:]


def _claims_to_be_huge(data: bytes, rng: random.Random) -> bytes:
    """Every place that could be the width beside the height now holds up to 60,000."""
    huge = rng.choice((8_000, 16_384, 30_000, 60_000))
    for order, form in itertools.product((1, -1), ("<ii", ">ii", "<HH", ">HH")):
        data = data.replace(struct.pack(form, *SIZE[::order]), struct.pack(form, huge, huge))
    if data.startswith(b"\x89PNG"):  # else its checksum tells
        data = data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]
    return data


def _empty(data: bytes, rng: random.Random) -> bytes:
    return b""


def _text(data: bytes, rng: random.Random) -> bytes:
    words = ("ffconcat version 1.0", "#EXTM3U", "filename,label", "[0. 1. 0.]", "\x1b[2J", "no video", "{}", "RIFF")
    return "\n".join(rng.choice(words) for _ in range(rng.randint(1, 400))).encode()


def _noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randint(1, 20_000))


def _unchanged(data: bytes, rng: random.Random) -> bytes:
    return data


DAMAGES: dict[str, Callable[[bytes, random.Random], bytes]] = {
    "truncated": _truncated,
    "bits flipped at the head": _flipped_head,
    "bits flipped in the body": _flipped_body,
    "bits flipped at the tail": _flipped_tail,
    "overwritten": _overwritten,
    "zeroed": _zeroed,
    "a piece lost": _piece_lost,
    "a piece twice": _piece_twice,
    "claims to be huge": _claims_to_be_huge,
    "empty": _empty,
    "text": _text,
    "noise": _noise,
    "another extension": _unchanged,
    "the other kind": _unchanged,
}
EXTENSIONS = {False: (".jpg", ".png"), True: (".mp4", ".avi", ".webm", ".mkv", ".mpg", ".ts", ".wmv")}


@dataclass(frozen=True)
class Damaged:
    """A file that was good."""

    path: Path
    source: str
    damage: str
    is_video: bool
    """How it is read: an image under the name of a video is read as a video."""


def damaged_files(good: Sequence[Path], folder: Path, *, count: int, seed: int) -> list[Damaged]:
    """`count` damaged files; every kind of damage meets every good file before one of them comes again."""
    rng = random.Random(seed)
    pairs = list(itertools.product(good, DAMAGES))
    files: list[Damaged] = []
    while len(files) < count:
        for source, damage in rng.sample(pairs, len(pairs))[: count - len(files)]:
            is_video = (source.name in VIDEOS) != (damage == "the other kind")
            extension = source.suffix
            if damage in ("another extension", "the other kind"):
                extension = rng.choice([known for known in EXTENSIONS[is_video] if known != extension])
            path = folder / f"{len(files):04d}{extension}"
            path.write_bytes(DAMAGES[damage](source.read_bytes(), rng))
            files.append(Damaged(path, source.name, damage, is_video))
    return files


@dataclass(frozen=True)
class Verdict:
    """What a reader made of a file."""

    outcome: str
    """'decoded' or 'reported'; 'failed' (another exception), 'crashed' or 'hung'."""
    detail: str
    num_frames: int = 0

    @property
    def is_fault(self) -> bool:
        return self.outcome not in ("decoded", "reported")


def _decoded(path: Path, reader: str) -> int:
    """Read a file to its end; the number of frames, which are checked for their promise."""
    if reader == IMAGES:
        batches: Iterable[np.ndarray] = [read_image(path)[None]]
        return sum(_checked(batch, None) for batch in batches)
    with open_video(path, reader) as video:
        count, shape = 0, None
        for batch in video.frames(batch_size=16):
            count += _checked(batch, shape)
            shape = batch.shape[1:]
        if count != len(video):
            raise ValueError(f"{count} frames, but a length of {len(video)}")
    return count


def _checked(batch: np.ndarray, shape: tuple[int, ...] | None) -> int:
    if batch.dtype != np.uint8 or batch.ndim != 4 or batch.shape[3] != 3 or not batch.size:
        raise ValueError(f"frames {batch.dtype} {batch.shape}")
    if shape is not None and batch.shape[1:] != shape:
        raise ValueError(f"frames {batch.shape} after {shape}")
    return len(batch)


def _verdict(path: Path, reader: str) -> Verdict:
    try:
        num_frames = _decoded(path, reader)
        return Verdict("decoded", f"{num_frames} frames", num_frames)
    except UserError as error:
        text = str(error)
        if "\n" in text or not text.startswith(str(path)):
            return Verdict("failed", f"not one line that names the file: {text!r}")
        return Verdict("reported", text)
    except Exception as error:  # what is looked for
        return Verdict("failed", f"{type(error).__name__}: {error}")


def _serve(connection: Connection, reader: str) -> None:
    """A reader's process: a path comes, a verdict goes."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # the libraries' own complaints
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    if reader != IMAGES:
        pick_backend(reader)
    connection.send(None)
    while (path := connection.recv()) is not None:
        connection.send(_verdict(path, reader))


class Watched:
    """A process that reads files for us, watched, and replaced when it dies or is silent for `limit` seconds."""

    def __init__(self, reader: str, *, limit: float) -> None:
        self.reader, self.limit = reader, limit
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self.reader), daemon=True)
        self._process.start()
        theirs.close()
        if not self._connection.poll(120):
            raise TimeoutError(f"the process of {self.reader} does not start")
        self._connection.recv()

    def verdict(self, path: Path) -> Verdict:
        self._connection.send(path)
        if not self._connection.poll(self.limit):
            self._process.kill()
            verdict = Verdict("hung", f"silent for {self.limit:g} s")
        else:
            try:
                return self._connection.recv()
            except EOFError:
                self._process.join()
                verdict = Verdict("crashed", f"exit code {self._process.exitcode}")
        self._process.join()
        self._start()
        return verdict

    def close(self) -> None:
        self._connection.send(None)
        self._process.join(10)
        self._process.kill()


def verdicts(files: Sequence[Damaged], reader: str, *, limit: float) -> list[tuple[Damaged, Verdict]]:
    """What `reader` makes of the files of its kind."""
    watched = Watched(reader, limit=limit)
    try:
        return [(file, watched.verdict(file.path)) for file in files if file.is_video != (reader == IMAGES)]
    finally:
        watched.close()


def _num_short(found: Sequence[tuple[Damaged, Verdict]]) -> int:
    """Videos that passed for whole although more than two frames are gone: no fault here, but good to know."""
    videos = [verdict for file, verdict in found if file.source in VIDEOS and file.is_video]
    return sum(verdict.outcome == "decoded" and verdict.num_frames < NUM_FRAMES - 2 for verdict in videos)


def usable_readers() -> list[str]:
    """The video backends that work here, and the reader of images."""
    readers = []
    for name in BACKENDS:
        try:
            readers.append(pick_backend(name))
        except UserError:
            continue
    return [*readers, IMAGES]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=500, help="damaged files")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="+", choices=[*BACKENDS, IMAGES], help="default: all that work here")
    parser.add_argument("--limit", type=float, default=20, help="seconds a file")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="write the files here and leave them")
    parser.add_argument("--list", action="store_true", help="every file with its verdict, not only the faults")
    args = parser.parse_args(argv)
    any_fault = False
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        for part in ("good", "damaged"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        good = write_good_files(folder / "good")
        files = damaged_files(good, folder / "damaged", count=args.count, seed=args.seed)
        for reader in args.readers or usable_readers():
            found = verdicts(files, reader, limit=args.limit)
            counts = Counter(verdict.outcome for _, verdict in found)
            figures = ", ".join(
                f"{counts[name]} {name}" for name in ("decoded", "reported", "failed", "crashed", "hung")
            )
            print(f"{reader}: {len(found)} files: {figures}; {_num_short(found)} decoded to less than it was")
            for file, verdict in found:
                if args.list or verdict.is_fault:
                    print(f"  {file.path.name} ({file.source}, {file.damage}): {verdict.outcome}: {verdict.detail}")
                any_fault |= verdict.is_fault
    return 1 if any_fault else 0


if __name__ == "__main__":
    sys.exit(main())
