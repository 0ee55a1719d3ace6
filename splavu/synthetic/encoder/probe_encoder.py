"""What the demo encoder knows: linear probes for actions and private attributes on subjects it has never seen.

python -m splavu.synthetic.probe_encoder --world DIR [--encoder DIR]
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor, nn

from splavu.runtime import cli
from splavu.synthetic.drawing.render import ATTRIBUTES
from splavu.synthetic.encoder.pretrain_encoder import FC_NORM_EPS, pooled
from splavu.synthetic.encoder.pretraining_clips import CLIP, SIDE, normalise, shrink

HERE = Path(__file__).parents[1] / "demo_encoder"


def load_encoder(folder: Path = HERE) -> nn.Module:
    """The demo encoder in evaluation mode, float32, with the epsilon of `fc_norm` that it was trained with."""
    from transformers import VideoMAEForVideoClassification

    model = VideoMAEForVideoClassification.from_pretrained(folder, dtype=torch.float32)
    model.fc_norm.eps = FC_NORM_EPS
    return model.eval()


def decode(path: Path) -> np.ndarray:  # -> [T, H, W, 3] uint8
    import av

    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def centre_crop(frames: Tensor) -> Tensor:  # [T, 3, H, W] -> [T, 3, 80, 80]
    top, left = (frames.shape[-2] - SIDE) // 2, (frames.shape[-1] - SIDE) // 2
    return frames[..., top : top + SIDE, left : left + SIDE]


@torch.inference_mode()
def features(model: nn.Module, clips: Tensor) -> np.ndarray:  # [K, 16, 3, 80, 80] uint8 -> [K, 192]
    return pooled(model, normalise(clips)).numpy()


def extract(model: nn.Module, world: Path, rows: list[dict[str, str]]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Features of each video's consecutive clips, [K, 192], and of the first frame of each clip tiled, [K, 192]."""
    from tqdm import tqdm

    moving, still = [], []
    for row in tqdm(rows, unit="video", desc="extract"):
        frames = centre_crop(shrink(decode(world / "hmdb51" / "videos" / row["action"] / row["filename"])))
        clips = frames[: len(frames) // CLIP * CLIP].view(-1, CLIP, 3, SIDE, SIDE)
        moving.append(features(model, clips))
        still.append(features(model, clips[:, :1].expand(-1, CLIP, -1, -1, -1)))
    return moving, still


def probe(train_x: np.ndarray, train_y: np.ndarray, test_x: np.ndarray, strength: float = 0.1) -> np.ndarray:
    """Class probabilities of a logistic regression on standardised features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    return model.fit(train_x, train_y).predict_proba(test_x)


def report(model: nn.Module, world: Path) -> dict[str, object]:
    """Action accuracy of videos, and average precision of each attribute from stills and from moving clips."""
    with (world / "hmdb51" / "private_labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    train = [row for row in rows if row["split"] == "train"]
    test = [row for row in rows if row["split"] == "test"]
    moving, still = extract(model, world, train + test)
    counts = [len(clips) for clips in moving]
    owner = np.repeat(np.arange(len(rows := train + test)), counts)
    is_train = owner < len(train)
    x_moving, x_still = np.concatenate(moving), np.concatenate(still)
    action = np.array([row["action"] for row in rows])[owner]
    clip_scores = probe(x_moving[is_train], action[is_train], x_moving[~is_train])
    classes, groups = np.unique(action[is_train]), owner[~is_train]
    right = [
        classes[clip_scores[groups == video].mean(axis=0).argmax()] == rows[video]["action"]
        for video in np.unique(groups)
    ]
    result: dict[str, object] = {"top1": round(100 * float(np.mean(right)), 2)}
    attributes = np.array([[int(row[name]) for name in ATTRIBUTES] for row in rows])[owner]  # [clips, A]
    for kind, x in (("static", x_still), ("moving", x_moving)):
        precision = {}
        for column, name in enumerate(ATTRIBUTES):
            scores = probe(x[is_train], attributes[is_train, column], x[~is_train])[:, 1]
            precision[name] = round(100 * float(average_precision_score(attributes[~is_train, column], scores)), 2)
        result[kind] = {"cMAP": round(float(np.mean(list(precision.values()))), 2), **precision}
    result["prevalence"] = round(100 * float(attributes[~is_train].mean()), 2)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.ArgumentParser(
        prog="python -m splavu.synthetic.encoder.probe_encoder",
        description="Probe the demo encoder on a synthetic world.",
    )
    parser.add_argument("--world", type=Path, required=True, help="folder made by `python -m splavu synthesize`")
    parser.add_argument("--encoder", type=Path, default=HERE, help="folder with config.json and model.safetensors")
    options = parser.parse_args(argv)
    print(json.dumps(report(load_encoder(options.encoder), options.world), indent=2))


if __name__ == "__main__":
    cli.run(main)
