"""Feature extraction against plain loops, its memory, and a GPU: `python benchmarks/extraction.py [--only NAME]`.

throughput  the demo encoder on 60 short videos: clips per second of `extract` and of the loops a researcher would write
            (decode a video, stack its clips, prepare them, forward), interleaved; the median of the repeats counts,
            the best is beside it
memory      peak resident memory of both scripts, child processes included, on a video of an hour (Linux)
gpu         VideoMAE-B on 16 x 224 x 224: clips per second in fp32 and bf16, and the share of a plain matrix product's
            speed; where there is no CUDA device, one line says so

What to expect on two cores: the loop lets torch use both for the encoder, by the kernels its class calls;
extraction has kernels of its own for transformers (`encoders/cpu_transformer.py`) and decodes meanwhile. A line at the
end says what two cores that did nothing but this encoder's matrix products in fp32 would reach. More takes fewer bits
(`--precision bf16`). Beside other work, the loop's two cores wait for each other at every layer, and the ratio grows
without meaning: mind the load it prints.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from splavu.data.encoders import encoder_spec
from splavu.errors import UserError
from splavu.extraction.clips import cut_clips
from splavu.extraction.decoding import Job, decoders
from splavu.extraction.encoders import FrozenEncoder, load_encoder
from splavu.extraction.encoders.cpu_transformer import linear
from splavu.extraction.extract import extract
from splavu.extraction.preprocessing import centre_view, normalise
from splavu.extraction.sources import CLIPS, Source, folder_files
from splavu.extraction.videos import backend_version, open_video, pick_backend
from splavu.runtime import cli
from splavu.runtime.environment import autocast

ROOM = Path(__file__).resolve().parents[1] / "feature_extraction"
ROUNDING = 1e-4
"""Features are of order 1; batches differ."""
BF16_ROUNDING = 0.05
"""Eight bits of mantissa, through six blocks."""
Features = dict[str, np.ndarray]  # key -> [K, D]


def throughput(args: argparse.Namespace) -> None:
    """`extract` in fp32 and bf16 against two loops, on the same videos."""
    with tempfile.TemporaryDirectory() as folder:
        files = folder_files(args.videos or _rendered(Path(folder), args.num_videos, seed=args.seed))
        _throughput(files, args)


def _throughput(files: Mapping[str, Path], args: argparse.Namespace) -> None:
    encoder, backend = load_encoder("demo"), pick_backend()
    ways: dict[str, Callable[[], Features]] = {
        **{
            f"loop, torch on {threads}": functools.partial(_loop, files, encoder, backend, threads=threads)
            for threads in sorted({1, args.threads})
        },
        "loop, transformers' processor": functools.partial(_model_card_loop, files, encoder, backend),
        "extract, fp32": functools.partial(_extracted, files, encoder, backend, args, precision="fp32"),
        "extract, bf16": functools.partial(_extracted, files, encoder, backend, args, precision="bf16"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    features: dict[str, Features] = {}
    for repeat in range(args.repeats + 1):
        for name, way in ways.items():
            started = time.perf_counter()
            features[name] = way()
            if repeat:  # the first one warms up
                seconds[name].append(time.perf_counter() - started)
    expected = features["loop, torch on 1"]
    num_clips = sum(map(len, expected.values()))
    num_workers, is_isolated = decoders(args.workers)
    kind = "processes" if is_isolated else "threads"
    print(f"{len(files)} videos, {num_clips} clips, {backend_version(backend)}, decoders: {num_workers} {kind}")
    # Columns: median and best of the repeats.
    times = {name: np.array([np.median(some), np.min(some)]) for name, some in seconds.items()}
    loop = np.min([some for name, some in times.items() if name.startswith("loop, torch")], axis=0)
    for name, taken in times.items():
        gap = max(np.abs(features[name][key] - expected[key]).max() for key in expected)
        if (allowed := {"extract, fp32": ROUNDING, "extract, bf16": BF16_ROUNDING}.get(name)) and gap > allowed:
            raise SystemExit(f"{name}: the features differ from the loop's by {gap}")
        print(
            f"{name:30} {num_clips / taken[0]:4.0f} clips/s (best {num_clips / taken[1]:.0f}), "
            f"{loop[0] / taken[0]:.2f} x the faster loop (best {loop[1] / taken[1]:.2f}), features within {gap:.1e}"
        )
    _print_bounds(encoder, num_clips / loop[1])


def _rendered(folder: Path, count: int, *, seed: int) -> Path:
    """Videos of the synthetic world, 34 to 90 frames of 160 x 120."""
    from splavu.synthetic.layouts import write_video
    from splavu.synthetic.plans import sample_plans, sample_subjects

    for plan in sample_plans(seed, "benchmark", sample_subjects(seed, "benchmark", count), per_subject=1):
        write_video(plan, seed, "benchmark", folder)
    return folder


def _extracted(
    files: Mapping[str, Path], encoder: FrozenEncoder, backend: str, args: argparse.Namespace, *, precision: str
) -> Features:
    spec = encoder.spec
    source = Source(dict(files), {}, spec.preprocessing, is_augmented=False)
    jobs = [
        Job(key, functools.partial(source.only(key).pieces, key, (CLIPS,), num_frames=spec.num_frames, backend=backend))
        for key in files
    ]
    num_workers, is_isolated = decoders(args.workers)
    results = extract(
        jobs,
        encoder,
        preprocessing=spec.preprocessing,
        device=torch.device("cpu"),
        num_workers=num_workers,
        is_isolated=is_isolated,
        precision=precision,
    )
    features = {}
    for result in results:
        if result.error is not None:
            raise result.error
        features[result.key] = result.features[CLIPS]
    return features


def _loop(files: Mapping[str, Path], encoder: FrozenEncoder, backend: str, *, threads: int) -> Features:
    """Video by video: decode all of it, stack clips, prepare with our transforms, forward."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        return {key: _forward(encoder, clips) for key, clips in _stacked(files, backend, encoder.spec.num_frames)}
    finally:
        torch.set_num_threads(before)


def _forward(encoder: FrozenEncoder, clips: Tensor) -> np.ndarray:  # [K, T, H, W, 3] -> [K, D]
    preprocessing = encoder.spec.preprocessing
    views = centre_view(clips.flatten(0, 1), preprocessing).unflatten(0, clips.shape[:2])
    with torch.inference_mode():
        return encoder(normalise(views, preprocessing)).numpy()


def _model_card_loop(files: Mapping[str, Path], encoder: FrozenEncoder, backend: str) -> Features:
    """The same, prepared as the model cards of VideoMAE show it: by the library's own processor, a clip at a time.

    It works on each frame apart, and its pixels are rounded another way, which moves features a little.
    """
    from transformers import VideoMAEImageProcessor

    preprocessing = encoder.spec.preprocessing
    processor = VideoMAEImageProcessor(
        size={"shortest_edge": preprocessing.short_side},
        crop_size={"height": preprocessing.crop, "width": preprocessing.crop},
        image_mean=list(preprocessing.mean),
        image_std=list(preprocessing.std),
    )
    features = {}
    for key, clips in _stacked(files, backend, encoder.spec.num_frames):
        prepared = [processor(list(clip.numpy()), return_tensors="pt")["pixel_values"] for clip in clips]
        with torch.inference_mode():
            features[key] = encoder(torch.cat(prepared)).numpy()
    return features


def _stacked(files: Mapping[str, Path], backend: str, num_frames: int) -> Iterator[tuple[str, Tensor]]:
    """(key, clips [K, T, H, W, 3]) of each video, decoded to its end."""
    for key, path in files.items():
        with open_video(path, backend) as video:
            frames = torch.from_numpy(np.concatenate(list(video.frames())))
        yield key, torch.cat(list(cut_clips([frames], num_frames)))


def _print_bounds(encoder: FrozenEncoder, plain_rate: float) -> None:
    """How fast the encoder could be at most, at the speed of a matrix product of its own size on one core each."""
    spec = encoder.spec
    clips = torch.randn(8, spec.num_frames, 3, spec.preprocessing.crop, spec.preprocessing.crop)
    work = _flops(encoder, clips) / len(clips)
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    left, right = torch.randn(1600, spec.feature_dim), torch.randn(4 * spec.feature_dim, spec.feature_dim)
    bias, levels = torch.zeros(len(right)), torch.zeros(clips.movedim(2, -1).shape, dtype=torch.uint8)
    features = encoder.extractor(spec.preprocessing, device=torch.device("cpu"))
    with torch.inference_mode():
        product = _fastest(lambda: linear(left, right, bias), repeats=50)
        forward = _fastest(lambda: features(levels), repeats=5) / len(clips)
    torch.set_num_threads(num_threads)
    peak = 2 * left.shape[0] * right.numel() / product
    bound = num_threads * peak / work
    print(
        f"on one core the encoder runs at {work / forward / 1e9:.0f} GFLOP/s, a matrix product of its size at "
        f"{peak / 1e9:.0f}: {num_threads} cores that did nothing else in fp32 would reach {bound:.0f} clips/s, "
        f"{bound / plain_rate:.2f} x the faster loop at its best"
    )


def memory(args: argparse.Namespace) -> None:
    """Peak memory of the scripts, as a user runs them, on one long video."""
    if not Path("/proc/self/task").is_dir():
        print("memory: skipped, needs Linux's /proc")
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        num_frames = write_long_video(root / "videos" / "long.mp4", minutes=args.minutes)
        for script, out in (("feature_extraction_action.py", "long.h5"), ("long_videos.py", "long")):
            command = [sys.executable, str(ROOM / script), "--videos", str(root / "videos"), "--out", str(root / out)]
            started = time.perf_counter()
            peak, num_processes = _peak_memory([*command, "--quiet", "--device", "cpu"])
            print(
                f"{script}: {args.minutes} min, {num_frames} frames of 160 x 120: peak {peak / 1e9:.2f} GB in "
                f"{num_processes} processes together (limit 1.5), {time.perf_counter() - started:.0f} s"
            )


def write_long_video(path: Path, *, minutes: float, fps: int = 30, period: int = 300) -> int:
    """A rendered clip of `period` frames, encoded once and repeated until `minutes` are full; returns its frames."""
    import av

    from splavu.synthetic.drawing.render import render
    from splavu.synthetic.plans import generator, sample_plans, sample_subjects, stage

    (plan,) = sample_plans(0, "benchmark", sample_subjects(0, "benchmark", 1), per_subject=1)
    shot = stage(plan, generator(0, "benchmark", plan.index))
    path.parent.mkdir(parents=True, exist_ok=True)
    short = path.with_suffix(".short.mp4")
    with av.open(str(short), "w") as container:
        stream = container.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 160, 120, "yuv420p", 200_000
        for picture in render(shot.scene, shot.people, np.arange(period) / fps).frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    repeats = round(minutes * 60 * fps / period)
    with av.open(str(path), "w") as container:
        for repeat in range(repeats):
            with av.open(str(short)) as once:
                if not repeat:
                    stream = container.add_stream_from_template(once.streams.video[0])
                ticks = round(repeat * period / fps / once.streams.video[0].time_base)
                for packet in once.demux(video=0):
                    if packet.dts is not None:
                        packet.dts, packet.pts, packet.stream = packet.dts + ticks, packet.pts + ticks, stream
                        container.mux(packet)
    short.unlink()
    return repeats * period


def _peak_memory(command: Sequence[str]) -> tuple[int, int]:
    """Bytes resident in a command and its descendants at once, pages they share counted again in each; processes."""
    peak = num_processes = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            sizes = [_resident(pid) for pid in _family(process.pid)]
            peak, num_processes = max(peak, sum(sizes)), max(num_processes, len(sizes))
            time.sleep(0.1)
    if process.returncode:
        raise UserError(" ".join(command), f"ended with {process.returncode}")
    return peak, num_processes


def _family(pid: int) -> list[int]:
    children: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, tasks.read_text().split())
        except OSError:  # ended in the meantime
            continue
    return [pid] + [member for child in children for member in _family(child)]


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):  # ended in the meantime
        return 0


@dataclass(frozen=True)
class Speed:
    """One line of the GPU's table."""

    precision: str
    batch: int
    clips_per_second: float
    tflops: float
    ceiling_tflops: float
    """Of one large matrix product in this precision."""
    gigabytes: float

    def __str__(self) -> str:
        return (
            f"| {self.precision} | {self.batch} | {self.clips_per_second:.0f} | {self.tflops:.0f} | "
            f"{self.tflops / self.ceiling_tflops:.0%} of {self.ceiling_tflops:.0f} | {self.gigabytes:.1f} |"
        )


def gpu(args: argparse.Namespace) -> None:
    """VideoMAE-B with random weights from uint8 clips in the GPU's memory; normalising is part of the time."""
    if not torch.cuda.is_available():
        print("gpu: skipped, torch finds no CUDA device")
        return
    device, encoder = torch.device("cuda"), _random_videomae()
    preprocessing, shape = encoder.spec.preprocessing, (16, 224, 224, 3)
    encoder.to(device)
    print(f"VideoMAE-B, 16 x 224 x 224, random weights, {torch.cuda.get_device_name()}, torch {torch.__version__}")
    print("| precision | batch | clips/s | TFLOP/s | share of a matrix product's TFLOP/s | GB |")
    print("|---|---|---|---|---|---|")
    with torch.inference_mode():
        for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            ceiling = _matmul_tflops(device, dtype)
            for batch in args.batches:
                clips = torch.randint(256, (batch, *shape), dtype=torch.uint8, device=device)

                def forward(clips: Tensor = clips, precision: str = precision) -> None:
                    with autocast(device, precision):
                        encoder(normalise(clips, preprocessing))
                    torch.cuda.synchronize()

                torch.cuda.reset_peak_memory_stats()
                seconds = _fastest(forward, repeats=10)
                work = _flops(encoder, normalise(clips[:1], preprocessing)) * batch
                gigabytes = torch.cuda.max_memory_allocated() / 1e9
                print(Speed(precision, batch, batch / seconds, work / seconds / 1e12, ceiling, gigabytes), flush=True)


def _random_videomae() -> FrozenEncoder:
    from transformers import VideoMAEConfig, VideoMAEForVideoClassification

    from splavu.extraction.encoders.videomae import VideoMAEEncoder

    torch.manual_seed(0)
    model = VideoMAEForVideoClassification(VideoMAEConfig(use_mean_pooling=True))  # its defaults are those of B
    return VideoMAEEncoder(model, encoder_spec("videoMAE"), source="random weights")


def _matmul_tflops(device: torch.device, dtype: torch.dtype, side: int = 8192) -> float:
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))

    def product() -> None:
        left @ right
        torch.cuda.synchronize()

    return 2 * side**3 / _fastest(product, repeats=20) / 1e12


def _flops(encoder: FrozenEncoder, clips: Tensor) -> int:  # [B, T, 3, H, W]
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        encoder(clips)
    return counter.get_total_flops()


def _fastest(work: Callable[[], object], *, repeats: int) -> float:
    """Seconds of the best of `repeats`, after one more to warm up."""
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


BENCHMARKS: dict[str, Callable[[argparse.Namespace], None]] = {"throughput": throughput, "memory": memory, "gpu": gpu}


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=BENCHMARKS, help="one of the parts")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--workers", type=int, help="as of the scripts: decoding processes, 0 for two threads")
    parser.add_argument("--videos", type=Path, metavar="FOLDER", help="videos of one's own for the throughput")
    parser.add_argument("--num-videos", type=int, default=60, help="to render where no folder is given")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=60, help="of the video for the memory")
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32, 64], help="clips at a time on the GPU")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    print(
        f"torch {torch.__version__}, {args.threads} threads on {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, "
        f"median of {args.repeats}"
    )
    if os.getloadavg()[0] > 0.5:
        print("note: other programs are at work on this machine, and times and ratios mean little")
    for name, benchmark in BENCHMARKS.items():
        if args.only in (None, name):
            benchmark(args)
    return 0


if __name__ == "__main__":
    cli.run(main)
