"""What a video file says of itself, as FFmpeg reads it: which stream to show, which way up, when, and if it is whole.

PyAV's reader follows these rules while it decodes. The other readers take them from `inspect`, where PyAV is installed:
they then agree with it, or refuse the file by name.

Note: a file's length in seconds times its frame rate is not its number of frames: rates vary, recordings are paused,
and those of a broadcast begin within a group of pictures. Here the packets are counted.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from splavu.errors import UserError
from splavu.extraction.videos.files import first_line, require_file, unreadable

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video import VideoFrame, VideoStream

LEAP = 10
"""Seconds between two packets of a broadcast that are no pause, but another clock: ffmpeg's `-dts_delta_threshold`."""
SMALLEST_PICTURE = 16
"""Bytes: a shorter packet may say no more than "as before", and gives no frame in some formats."""
CONVERTED = frozenset({0, 1, 2, 3, 4, 5, 6, 7, 9})
"""Colour matrices by number (ITU-T H.273): RGB, BT.709, none named, reserved, FCC, two of BT.601, 240M, BT.2020."""
REMEDY = "replace the file or leave it out"


def open_container(path: Path) -> tuple[InputContainer, VideoStream]:
    """An open file and the stream that is its video, to be decoded by one thread.

    That is ffmpeg's choice: the most pixels, where a stream marked as the default has five million more. A cover
    picture is none.

    Raises:
        UserError: The file does not open, or has no video that can be decoded.
    """
    import av

    require_file(path)
    try:
        container = av.open(str(path), metadata_errors="replace")
    except (av.FFmpegError, OSError, ValueError) as error:
        raise unreadable(path, error) from error
    streams = _videos(container)
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        container.close()
        problem = "its video is in a format that FFmpeg has no decoder for" if streams else "holds no video"
        raise UserError(path, problem, REMEDY)

    def score(stream: VideoStream) -> int:
        context = stream.codec_context
        return context.width * context.height + 5_000_000 * ("default" in _marks(stream))

    best = max(known, key=score)
    best.thread_type = "NONE"
    return container, best


def _videos(container: InputContainer) -> list[VideoStream]:
    return [stream for stream in container.streams.video if "attached_pic" not in _marks(stream)]


def _marks(stream: VideoStream) -> list[str]:
    return [mark.name for mark in type(stream.disposition) if mark in stream.disposition]


def frames_per_second(stream: VideoStream) -> float:
    """On average, by the file's word; 0 where it has none."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def turning_filters(frame: VideoFrame) -> tuple[tuple[str, str], ...]:
    """The filters (name, arguments) that put a frame upright, as the `ffmpeg` command chooses them.

    The display matrix of a frame maps its pixels to the screen: rows (a, b, u), (c, d, v), (x, y, w), of which a to d
    are 16.16 fixed-point numbers. Containers call it a rotation, a mirroring or a roll.
    """
    from av.sidedata.sidedata import Type

    matrix = frame.side_data.get(Type.DISPLAYMATRIX)
    if matrix is None:
        return ()
    a, b, _, c, d = struct.unpack("=5i", bytes(matrix)[:20])
    if not (math.hypot(a, c) and math.hypot(b, d)):  # flattens the picture: nonsense
        return ()
    angle = round(math.degrees(math.atan2(b / math.hypot(b, d), a / math.hypot(a, c)))) % 360
    if angle == 0:
        return (("vflip", ""),) if d < 0 else ()
    if angle == 90:
        return (("transpose", "cclock_flip" if c > 0 else "clock"),)
    if angle == 180:
        return (("hflip", ""),) * (a < 0) + (("vflip", ""),) * (d < 0)
    if angle == 270:
        return (("transpose", "clock_flip" if c < 0 else "cclock"),)
    return (("rotate", f"{angle}*PI/180"),)


def unknown_colours(frame: VideoFrame) -> str:
    """What is wrong with a colour matrix that FFmpeg's `scale` filter has no numbers for, '' if it has."""
    return (
        "" if int(frame.colorspace) in CONVERTED else f"its colour matrix, number {int(frame.colorspace)}, is unknown"
    )


class Account:
    """A running account of the packets of a file, to be asked at its end whether all of it has come.

    Attributes:
        streams: Those whose packets it wants: the video, or all where the file says only when all of them end.
        is_broadcast: MPEG-TS or a program stream, which may begin and end anywhere.
        first: Time stamp of the first frame that decodes, in the stream's units. What comes earlier is the rest of a
            group of pictures whose beginning was not recorded.
        is_interlaced: Two packets may be one frame.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._stream, self._unit = stream, float(stream.time_base or 1)
        self._start = max(0.0, (container.start_time or 0) / 1e6)  # below 0 is what the decoder of sound needs
        self._form = set(container.format.name.split(","))
        self._claimed, is_of_all = _claimed_end(container, stream, self._form)
        self._end = -math.inf
        self._may_hide = stream.codec_context.name in ("vp8", "libvpx")
        self._last: tuple[int, int] | None = None  # time stamp and duration
        self._shift = 0
        self.streams = list(container.streams) if is_of_all else [stream]
        self.num_packets = 0
        self.is_broadcast = bool(self._form & {"mpegts", "mpeg"})
        self.stamps: list[tuple[int, int]] = []  # of packets to be shown: (time stamp, size)
        self.first: int | None = None
        self.is_interlaced = False

    def add(self, packet: Packet) -> bool:
        """Take note of a packet; returns whether it is one of the video. Those of a broadcast then have no leaps."""
        is_ours = packet.stream is self._stream
        size = packet.size
        if not size:  # the end of a stream
            return is_ours
        if self.is_broadcast and is_ours:
            self._join(packet)
        stamp = packet.dts if packet.pts is None else packet.pts
        self.num_packets += is_ours
        if stamp is None:
            return is_ours
        unit = self._unit if is_ours else float(packet.time_base or 0)
        self._end = max(self._end, (stamp + (packet.duration or 0)) * unit)
        # What is outside the edit list is decoded, but never shown.
        if is_ours and not packet.is_discard and not (self._may_hide and _is_hidden(packet)):
            self.stamps.append((stamp, size))
        return is_ours

    def _join(self, packet: Packet) -> None:
        """Let a packet's time stamps go on from the last one's where the clock was set back or leapt, as in ffmpeg."""
        if packet.dts is None:
            return
        stamp = packet.dts + self._shift
        if self._last is not None:
            step = stamp - self._last[0]
            leap = step - self._last[1]
            if abs(leap) * self._unit > LEAP or step * self._unit < -0.1:
                self._shift -= leap
                stamp -= leap
        if self._shift:
            packet.dts = stamp
            packet.pts = None if packet.pts is None else packet.pts + self._shift
        self._last = stamp, packet.duration or 0

    def decoded(self, packet: Packet) -> Sequence[VideoFrame]:
        """The frames that a packet completes; none of what a broadcast holds before its first whole picture."""
        import av

        try:
            return packet.decode()
        except av.FFmpegError:
            if self.is_broadcast and self.first is None:
                return []
            raise

    def note(self, frame: VideoFrame) -> None:
        """Take note of a frame that was decoded."""
        if self.first is None:
            self.first = frame.pts
        self.is_interlaced |= bool(frame.interlaced_frame)

    def start(self) -> float | None:
        """Second at which the file begins, by the clock of its time stamps: what ffmpeg and players call 0.

        None for AVI, which only numbers its packets: a frame has the number of the packet with which it comes out.
        """
        return None if "avi" in self._form else self._start

    def shown(self) -> list[int]:
        """Time stamps of the packets from the first frame on, in order."""
        first = -math.inf if self.first is None or "avi" in self._form else self.first
        return sorted(stamp for stamp, _ in self.stamps if stamp >= first)

    def least_frames(self) -> int:
        """So many frames there are at least, if none is lost; 0 where the packets have no time stamps."""
        pictures = sum(size >= SMALLEST_PICTURE for stamp, size in self.stamps if stamp >= (self.first or 0))
        return pictures // 2 if self.is_interlaced else pictures

    def missing(self) -> str:
        """What is gone from the end of the file, '' if nothing is known to be."""
        frames, fps = self._stream.frames, frames_per_second(self._stream)
        if self._claimed is None:
            return ""
        # Headers are off by a little: sound that ends later, a last picture that stays.
        tolerance = max(min(0.02 * self._claimed, 5), 3 / fps if fps else 0, 0.1)
        if self._claimed - self._end <= tolerance:
            return ""
        if "avi" not in self._form and 0 < frames <= self.num_packets:
            return ""
        return f"truncated: it ends after {max(self._end, 0):.1f} of {self._claimed:.1f} s"


def _claimed_end(container: InputContainer, stream: VideoStream, form: set[str]) -> tuple[float | None, bool]:
    """(when the file ends by its own account, in seconds, or None; whether this is the end of all its streams).

    None for formats such as MPEG-TS, whose length FFmpeg finds out by looking at the end of what there is.
    """
    if "avi" in form and stream.frames:
        fps = frames_per_second(stream)
        return (stream.frames / fps if fps else None), False
    if "mov" in form and stream.duration:
        return float((max(stream.start_time or 0, 0) + stream.duration) * stream.time_base), False
    if "matroska" in form and (seconds := _clock(stream.metadata.get("DURATION", ""))):
        return seconds, False
    if form & {"mov", "matroska", "asf", "flv"} and container.duration:
        return container.duration / 1e6, True
    return None, True


def _clock(text: str) -> float:
    """`"00:00:19.017000000"` -> 19.017; 0 if it is no time."""
    try:
        hours, minutes, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        return 0.0
    duration = 3600 * hours + 60 * minutes + seconds
    return duration if math.isfinite(duration) else 0.0


def _is_hidden(packet: Packet) -> bool:
    """Whether a packet of VP8 is a picture to predict others from, never shown (RFC 6386, 9.1: show_frame)."""
    return not bytes(memoryview(packet)[:1])[0] & 0x10


def frame_times(
    stamps: Sequence[float | None], *, start: float | None, fps: float
) -> tuple[np.ndarray, float]:  # -> [n], []
    """When each frame is shown, and how long the video is: seconds from the beginning of the file.

    The last frame counts as long as most do.

    Args:
        stamps: Presentation time stamps of the frames in seconds; None where the file has none, and then frames are
            spaced by the frame rate.
        start: What the file calls its beginning; None is the first frame.
        fps: Frames per second; 0 is unknown.
    """
    if any(stamp is None for stamp in stamps):
        times = np.arange(len(stamps)) / (fps or math.nan)
    else:
        seconds = np.array(stamps, np.float64)
        times = np.maximum.accumulate(seconds - (seconds[:1] if start is None else start))
    last = float(np.median(np.diff(times))) if len(times) > 1 else 1 / (fps or math.nan)
    return times, float(times[-1] + last) if len(times) else 0.0


@dataclass(frozen=True)
class Facts:
    """What `inspect` found."""

    form: str
    """FFmpeg's name of the container, such as matroska,webm."""
    stream: int
    """Index of the stream to show."""
    num_streams: int
    """Videos in the file; a cover picture is none."""
    leading: int
    """Packets before the first that decodes."""
    least_frames: int
    times: np.ndarray  # [n] seconds from the beginning
    duration: float
    turning: tuple[tuple[str, str], ...]
    """`turning_filters` of the first frame."""
    pixels: str
    """FFmpeg's name of the pixel format, such as yuv420p10le."""
    bits: int
    """Of a sample."""
    is_full_range: bool
    matrix: int
    """Colour matrix as the standards number it; 2 is unspecified."""

    @property
    def is_right_angle(self) -> bool:
        """Whether the picture is turned by 90, 180 or 270 degrees and not mirrored."""
        one = (("transpose", "clock"),), (("transpose", "cclock"),)
        return self.turning in (*one, (("hflip", ""), ("vflip", "")))

    @property
    def is_601(self) -> bool:
        """Whether colours are in the matrix of BT.601, which is also meant where none is named."""
        return self.matrix in (2, 5, 6)


def inspect(path: Path) -> Facts:
    """Read a file's packets to the end, and decode its first frame.

    Raises:
        UserError: The file does not open, is truncated, or no frame of it decodes.
    """
    import av

    container, stream = open_container(path)
    account, frame = Account(container, stream), None
    with container:
        try:
            for packet in container.demux(*account.streams):
                if not account.add(packet):
                    continue
                if frame is None:
                    frame = next(iter(account.decoded(packet)), None)
                elif packet.is_corrupt and not account.is_broadcast:
                    raise UserError(path, f"damaged: packet {account.num_packets} is not whole", REMEDY)
        except (av.FFmpegError, OSError, ValueError) as error:
            raise UserError(path, f"damaged ({first_line(error)})", REMEDY) from error
        if frame is None:
            raise UserError(path, "no frame of this video decodes", REMEDY)
        account.note(frame)
        if problem := unknown_colours(frame) or account.missing():
            raise UserError(path, problem, REMEDY)
        shown, unit = account.shown(), float(stream.time_base or 1)
        leading = len(account.stamps) - len(shown)
        times, duration = frame_times(
            [stamp * unit for stamp in shown], start=account.start(), fps=frames_per_second(stream)
        )
        return Facts(
            form=container.format.name,
            stream=stream.index,
            num_streams=len(_videos(container)),
            leading=leading,
            least_frames=account.least_frames(),
            times=times,
            duration=duration,
            turning=turning_filters(frame),
            pixels=frame.format.name,
            bits=max(component.bits for component in frame.format.components),
            is_full_range=int(frame.color_range) == 2 or frame.format.name.startswith("yuvj"),
            matrix=int(frame.colorspace),
        )
