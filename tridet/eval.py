"""Evaluate a TriDet checkpoint: mAP by tIoU on the configuration's test split, pictures, or one video's detections.

python tridet/eval.py CONFIG CHECKPOINT                     a file, or a folder, whose last epoch is taken
python tridet/eval.py CONFIG CHECKPOINT --pictures 4        time lines of four videos beside the checkpoint
python tridet/eval.py CONFIG CHECKPOINT --video FILE.mp4 --encoder videoMAE    from pixels to detections
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import logging
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Predicate
from torch import Tensor
from tqdm import tqdm

from tridet import cli
from tridet.annotations import ENDLESS, Video, read_json
from tridet.average_precision import THUMOS_TIOUS, AveragePrecision, Segments, mean_average_precision
from tridet.checkpoints import check_target, find, load_weights, write_json, written
from tridet.detector import TriDet
from tridet.errors import InputError
from tridet.schema import Config, Count, NonNegativeInt
from tridet.score_fusion import fuse_video_scores, read_video_scores
from tridet.thumos14 import Batches, ThumosDataset, ground_truth
from tridet.timeline import Intervals, check_drawing, draw_timeline

logger = logging.getLogger(__name__)


def detect(
    model: TriDet,
    batches: Batches,
    *,
    device: torch.device | str,
    transform: Callable[[Tensor], Tensor] | None = None,
) -> list[dict[str, Any]]:
    """The model's detections in every video: `video_id`, `segments` [n, 2] seconds, `scores` [n], `labels` [n].

    Args:
        transform: `[D, T] -> [D, T]`, applied to the features on the device.
    """
    model.eval()
    found = []
    with torch.no_grad():
        hidden = not logger.isEnabledFor(logging.INFO)
        shown = tqdm(batches.epoch(), total=len(batches), desc="detecting", unit="batch", leave=False, disable=hidden)
        for batch in shown:
            moved = [{**video, "feats": video["feats"].to(device)} for video in batch]
            if transform is not None:
                moved = [{**video, "feats": transform(video["feats"])} for video in moved]
            for result in model(moved):
                found.append(
                    {key: value.cpu() if isinstance(value, Tensor) else value for key, value in result.items()}
                )
    return found


def as_segments(found: Sequence[Mapping[str, Any]]) -> Segments:
    """Detections of many videos in one table; a video without detections contributes nothing."""

    def column(key: str) -> np.ndarray:
        return np.concatenate([np.asarray(result[key]) for result in found])

    if not found:
        return Segments(np.zeros(0, str), np.zeros((0, 2)), np.zeros(0, np.int64), np.zeros(0))
    counts = [len(result["scores"]) for result in found]
    videos = np.repeat([result["video_id"] for result in found], counts)
    return Segments(videos, column("segments"), column("labels"), column("scores"))


def evaluate(
    model: TriDet,
    batches: Batches,
    truth: Segments,
    *,
    device: torch.device | str,
    transform: Callable[[Tensor], Tensor] | None = None,
    tious: Sequence[float] = THUMOS_TIOUS,
) -> AveragePrecision:
    """Mean average precision of the model on a split; videos of `truth` without features count as missed."""
    return mean_average_precision(
        truth, as_segments(detect(model, batches, device=device, transform=transform)), tious=tious
    )


def report(result: AveragePrecision) -> str:
    """One line a tIoU, and the average last, in per cent."""
    lines = [
        f"mAP at tIoU {tiou:.2f}: {100 * value:5.2f} %"
        for tiou, value in zip(result.tious, result.per_tiou, strict=True)
    ]
    return "\n".join([*lines, f"average mAP: {100 * result.average:.2f} %"])


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    config, device, anonymizer = cli.start(args)
    if args.topk > 0:
        config = replace(config, test_cfg=replace(config.test_cfg, max_seg_num=args.topk))
    checkpoint = find(args.checkpoint)
    model = TriDet(config)
    load_weights(model, checkpoint)
    model.to(device)
    if args.video is not None:
        return _one_video(model, config, checkpoint, anonymizer, args, device)

    dataset = ThumosDataset(config.dataset, config.val_split[:1], training=False, anonymizer=anonymizer)
    pictured = _pictured(dataset, args)
    found = detect(model, Batches(dataset, args.batch_size), device=device)
    detections = as_segments(found)
    if config.test_cfg.ext_score_file is not None:
        detections = fuse_video_scores(detections, read_video_scores(config.test_cfg.ext_score_file))
    if args.saveonly:
        target = checkpoint.parent / "eval_results.pkl"
        with written(target) as file:
            pickle.dump(_published_layout(detections, np.array(dataset.annotations.ids)), file)
        print(target)
        return 0
    truth = ground_truth(dataset.annotations, config.val_split[0])
    result = mean_average_precision(truth, detections)
    folder = checkpoint.parent
    summary = {
        "checkpoint": checkpoint.name,
        "split": config.val_split[0],
        "videos": len(dataset),
        "videos_without_features": len(dataset.missing),
        "aam": None if args.aam is None else str(args.aam),
        "aam_serving": None if args.aam is None else args.aam_serving,
        "average_map": float(result.average),
        "map": {f"{tiou:.2f}": float(value) for tiou, value in zip(result.tious, result.per_tiou, strict=True)},
        "ap": {
            name: [float(value) for value in result.ap[:, column]]
            for column, name in enumerate(_names(dataset.annotations.classes, result.classes))
        },
    }
    # A result on features that the detector wasn't trained on doesn't replace the one on its own features.
    own = _trained_on(folder) in (None, (summary["aam"], summary["aam_serving"]))
    write_json(folder / ("results.json" if own else "results_other_features.json"), {"tad": summary})
    for index in pictured:
        print(_draw(found[index], dataset, index, args.videos, folder / "timelines"))
    print(report(result))
    return 0


def _parser() -> argparse.ArgumentParser:
    made = cli.parser(__doc__)
    made.add_argument("checkpoint", metavar="CHECKPOINT", type=Path, help="*.pth.tar, or a folder of them")
    made.add_argument(
        "-t",
        "--topk",
        type=cli.within(Annotated[int, Predicate(_is_topk)]),
        default=-1,
        help="detections a video (default: the configuration's)",
    )
    made.add_argument("--saveonly", action="store_true", help="write eval_results.pkl and don't evaluate")
    made.add_argument("-p", "--print-freq", type=int, default=10, help="accepted; progress is a bar here")
    made.add_argument("--batch-size", type=Count, default=1, help="videos at once; the results don't depend on it")
    made.add_argument("--pictures", type=NonNegativeInt, default=0, metavar="N", help="draw the time lines of N videos")
    made.add_argument("--videos", type=Path, help="folder of VIDEO_ID.mp4, for frames in the pictures")
    made.add_argument("--video", type=Path, metavar="FILE", help="detect in this video instead")
    made.add_argument("--encoder", default="videoMAE", help="of --video; as ft_arch in params (default videoMAE)")
    made.add_argument("--weights", help="of the encoder: a hub name or a folder")
    made.add_argument("--out", type=Path, help="PNG of --video (default: FILE's name beside the checkpoint)")
    return made


def _is_topk(count: int) -> bool:
    """at least 1, or -1 for the configuration's"""
    return count == -1 or 1 <= count < 2**31


def _trained_on(folder: Path) -> tuple[str | None, str | None] | None:
    """The anonymizer that a run folder's training applied, and how; None where that isn't recorded."""
    recorded = folder / "params.json"
    if not recorded.is_file():
        return None
    try:
        params = dict(read_json(recorded, remedy="restore it"))
    except (TypeError, ValueError):
        raise InputError(recorded, "isn't as it was written", "restore it, or remove it") from None
    return params.get("aam"), params.get("aam_serving")


def _names(classes: Mapping[str, int], labels: Sequence[int]) -> list[str]:
    known = {label: name for name, label in classes.items()}
    return [known.get(int(label), str(label)) for label in labels]


def _published_layout(found: Segments, ids: np.ndarray) -> dict[str, Any]:  # ids: [C], the annotation file's
    return {
        "video-id": found.video.tolist(),
        "t-start": found.segments[:, 0],
        "t-end": found.segments[:, 1],
        "label": ids[found.label],
        "score": found.score,
    }


def _pictured(dataset: ThumosDataset, args: argparse.Namespace) -> list[int]:
    """The videos to draw, spread over the data set; their files are looked for before anything is computed."""
    count = min(max(args.pictures, 0), len(dataset))
    indices = np.linspace(0, len(dataset) - 1, count).astype(int).tolist()
    if indices:
        check_drawing()
    if args.videos is not None:
        for index in indices:
            path = _video_file(args.videos, dataset.videos[index])
            if not path.is_file():
                raise InputError(path, "is needed for a picture and isn't there", "correct --videos, or leave it out")
    return indices


def _video_file(folder: Path, video: Video) -> Path:
    return folder / f"{video.name}.mp4"


def _draw(found: Mapping[str, Any], dataset: ThumosDataset, index: int, videos: Path | None, folder: Path) -> Path:
    video, data = dataset.videos[index], dataset.config
    frames = []
    if videos is not None:
        from tridet.from_video import thumbnails  # needs feature_extraction

        frames = thumbnails(_video_file(videos, video))
    steps = dataset.lengths[index] * data.downsample_rate
    seconds = ((steps - 1) * data.feat_stride + data.num_frames) / video.fps
    return draw_timeline(
        folder / f"{video.name}.png",
        title=video.name,
        duration=seconds if video.duration == ENDLESS else video.duration,
        detections=Intervals(*(np.asarray(found[key]) for key in ("segments", "labels", "scores"))),
        truth=Intervals(video.segments, video.labels),
        class_names={label: name for name, label in dataset.annotations.classes.items()},
        frames=frames,
    )


def _one_video(
    model: TriDet,
    config: Config,
    checkpoint: Path,
    anonymizer: Callable[[Tensor], Tensor] | None,
    args: argparse.Namespace,
    device: torch.device,
) -> int:
    from tridet.from_video import features_of, thumbnails  # needs feature_extraction

    check_drawing()
    picture = args.out or checkpoint.parent / "timelines" / f"{args.video.stem}.png"
    check_target(picture, inputs=[path for path in (args.video, checkpoint, args.config, args.aam) if path is not None])
    data = config.dataset
    extracted = features_of(
        args.video,
        encoder=args.encoder,
        weights=args.weights,
        feature_dim=data.input_dim,
        stride=data.feat_stride,
        device=device,
    )
    feats = torch.from_numpy(extracted.features)
    if anonymizer is not None:
        feats = anonymizer(feats)
    video = {
        "video_id": args.video.stem,
        "feats": feats[:: data.downsample_rate].T.contiguous().to(device),
        "segments": None,
        "labels": None,
        # Segments come in frames, and then get their times: the rate may vary.
        "fps": 1.0,
        "duration": float(len(extracted.times)),
        "feat_stride": data.feat_stride * data.downsample_rate,
        "feat_num_frames": data.num_frames,
    }
    model.eval()
    with torch.no_grad():
        found = model([video])[0]
    found["segments"] = torch.from_numpy(extracted.seconds(found["segments"].numpy()))
    duration = extracted.duration
    names = _class_names(config)
    note = ""
    if args.encoder == "demo":
        note = "the demo encoder knows the synthetic world only: on a real video these scores mean nothing"
    print(f"{args.video.name}: {len(feats)} features, {duration:.1f} s, {len(found['scores'])} detections")
    for segment, score, label in list(zip(found["segments"], found["scores"], found["labels"], strict=True))[:10]:
        print(f"  {segment[0]:7.1f} - {segment[1]:7.1f} s   {names[int(label)]:<20} {float(score):.3f}")
    if note:
        print(f"note: {note}")
    drawn = draw_timeline(
        picture,
        title=args.video.name,
        duration=duration,
        detections=Intervals(*(np.asarray(found[key]) for key in ("segments", "labels", "scores"))),
        class_names=names,
        frames=thumbnails(args.video),
        note=note,
    )
    print(drawn)
    return 0


def _class_names(config: Config) -> dict[int, str]:
    """From the annotation file, if it is there; a video needs none."""
    from tridet.annotations import read_annotations

    known = {label: f"class {label}" for label in range(config.dataset.num_classes)}
    if config.dataset.json_file and Path(config.dataset.json_file).is_file():
        known |= {label: name for name, label in read_annotations(config.dataset.json_file).classes.items()}
    return known


if __name__ == "__main__":
    cli.run(main)
