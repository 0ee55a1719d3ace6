"""Every encoder at full size on real clips, by every reader: `python benchmarks/encoders.py --videos FOLDER`.

Weights are random, written as the official files or hub folders are laid out, and loaded as `--encoder NAME --weights
FILE` loads them, so a feature means nothing; what is shown is that each architecture takes a clip from file to feature,
how wide it is, how long a clip takes and how large the network is. The frames of all readers are compared with PyAV's.
`--whole` extracts every clip of the videos as `feature_extraction_action.py` would, once by each of `--readers`,
and compares the features; it takes as long as it takes. Needs about 10 GB of memory and 5 GB of disk for the largest.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from splavu.errors import UserError
from splavu.extraction.clips import cut_clips
from splavu.extraction.encoders import FrozenEncoder, load_encoder
from splavu.extraction.encoders.i3d import InceptionI3D
from splavu.extraction.encoders.i3d_resnet import I3DResNet50
from splavu.extraction.encoders.vit import Architecture, VideoTransformer
from splavu.extraction.preprocessing import centre_view, normalise
from splavu.extraction.video_features import video_features
from splavu.extraction.videos import BACKENDS, list_videos, open_video
from splavu.reports.markdown import markdown_table
from splavu.runtime import cli


def convolutional(network: type[torch.nn.Module]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        torch.save(network().state_dict(), path)
        return path

    return write


def transformer(prefix: str, entry: str, **options: object) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        network = VideoTransformer(Architecture(tubelet=2, **options))
        torch.nn.init.normal_(network.pos_embed, std=0.02)  # a table, where there is one, starts empty
        torch.save({entry: {f"{prefix}{name}": value for name, value in network.state_dict().items()}}, path)
        return path

    return write


def hub(model: str, config: str, **options: object) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        import transformers

        made = getattr(transformers, model)(getattr(transformers, config)(**options))
        made.save_pretrained(path.with_suffix(""))
        return path.with_suffix("")

    return write


def _videomae(width: int, depth: int, heads: int, hidden: int) -> Callable[[Path], Path]:
    size = {"hidden_size": width, "num_hidden_layers": depth, "num_attention_heads": heads, "intermediate_size": hidden}
    return hub("VideoMAEForVideoClassification", "VideoMAEConfig", use_mean_pooling=True, **size)


_VJEPA = {"patch": 16, "grid": (8, 14, 14), "pools_normalised_tokens": True, "keeps_positions": True}

WRITERS: dict[str, Callable[[Path], Path]] = {
    "i3d": convolutional(InceptionI3D),
    "largei3d": convolutional(I3DResNet50),
    "videoMAE": _videomae(768, 12, 12, 3072),
    "videoMAE-large": _videomae(1024, 24, 16, 4096),
    "videoMAE-huge": _videomae(1280, 32, 16, 5120),
    "maev2": transformer("", "module", width=1408, depth=40, num_heads=16, hidden=6144, patch=14, grid=(8, 16, 16)),
    "internvid": transformer("", "module", width=1280, depth=32, num_heads=16, hidden=5120, patch=16, grid=(8, 14, 14)),
    "vjepa": transformer(
        "module.backbone.", "target_encoder", width=1280, depth=32, num_heads=16, hidden=5120, **_VJEPA
    ),
    "vjepa-large": transformer(
        "module.backbone.", "target_encoder", width=1024, depth=24, num_heads=16, hidden=4096, **_VJEPA
    ),
    "vjepa2": hub("VJEPA2Model", "VJEPA2Config"),
    "hf": hub("TimesformerModel", "TimesformerConfig", num_frames=8),
}
"""Encoder -> writes random weights in the official layout; gives the file or folder."""


def first_clip(video: Path, num_frames: int, reader: str) -> torch.Tensor:  # -> [T, H, W, 3] uint8
    with open_video(video, reader) as opened:
        frames = (torch.from_numpy(batch) for batch in opened.frames(batch_size=num_frames))
        return next(iter(cut_clips(frames, num_frames)))[0]


def run(name: str, weights: str | None, clips: Sequence[torch.Tensor]) -> list[str]:
    """One line of the table: the encoder on each clip alone."""
    encoder: FrozenEncoder = load_encoder(name, weights)
    preprocessing = encoder.spec.preprocessing
    seconds, features = [], []
    for clip in clips:
        views = normalise(centre_view(clip[: encoder.spec.num_frames], preprocessing)[None], preprocessing)
        started = time.perf_counter()
        with torch.inference_mode():
            features.append(encoder(views)[0])
        seconds.append(time.perf_counter() - started)
    if not all(feature.isfinite().all() and feature.shape == (encoder.spec.feature_dim,) for feature in features):
        raise UserError(name, "gave features that are not finite or of another width")
    millions = sum(value.numel() for value in encoder.parameters()) / 1e6
    spec = encoder.spec
    size = f"{spec.num_frames} x {spec.preprocessing.crop}"
    return [name, f"{millions:.1f}", size, str(spec.feature_dim), f"{min(seconds):.2f}"]


def run_whole(name: str, weights: str | None, videos: Sequence[Path], readers: Sequence[str]) -> Iterator[list[str]]:
    """A line for each reader: every clip of the videos, decoding included, and whether its features are the first's."""
    encoder = load_encoder(name, weights)
    first: list[np.ndarray] = []
    for reader in readers:
        started = time.perf_counter()
        features = [video_features(video, encoder, backend=reader).features for video in videos]
        seconds = time.perf_counter() - started
        counts = [len(rows) for rows in features]
        if not all(np.isfinite(rows).all() for rows in features):
            raise UserError(name, f"gave features that are not finite, by {reader}")
        first = first or features
        same = all(np.array_equal(one, other) for one, other in zip(first, features, strict=True))
        clips = " + ".join(map(str, counts))
        yield [name, reader, clips, f"{seconds / sum(counts):.2f}", "yes" if same else "no"]


def readers_table(videos: Sequence[Path]) -> Iterator[list[str]]:
    for name in BACKENDS:
        try:
            clips = [first_clip(video, 64, name) for video in videos]
        except UserError as error:
            yield [name, f"not run: {error}"]
            continue
        same = all(torch.equal(clip, first_clip(video, 64, "pyav")) for clip, video in zip(clips, videos, strict=True))
        yield [name, "first 64 frames equal PyAV's" if same else "first 64 frames differ from PyAV's"]


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--videos", type=Path, required=True, help="folder; the first 16 (or 64) frames of each are read"
    )
    parser.add_argument("--whole", action="store_true", help="all clips of the videos instead of the first ones")
    parser.add_argument("--readers", nargs="+", choices=BACKENDS, default=["pyav", "decord"], help="for --whole")
    parser.add_argument("--only", nargs="+", default=["demo", *WRITERS], help="encoders (default: all)")
    args = parser.parse_args(argv)
    videos = list_videos(args.videos)
    print(markdown_table(["reader", "frames"], readers_table(videos)))
    clips = [first_clip(video, 64, "pyav") for video in videos]
    rows = []
    for name in args.only:
        with tempfile.TemporaryDirectory() as folder:
            torch.manual_seed(0)
            weights = None if name == "demo" else str(WRITERS[name](Path(folder) / "weights.pth"))
            made = run_whole(name, weights, videos, args.readers) if args.whole else [run(name, weights, clips)]
            for row in made:
                rows.append(row)
                print(*row, flush=True)
    print(f"\n{torch.get_num_threads()} threads, fp32, random weights but for demo\n")
    heads = ["reader", "clips", "seconds a clip", f"features equal {args.readers[0]}'s"]
    if not args.whole:
        heads = ["million weights", "frames x pixels", "width", "seconds a clip, one at a time"]
    print(markdown_table(["encoder", *heads], rows))


if __name__ == "__main__":
    cli.run(main)
