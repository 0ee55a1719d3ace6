"""Writing the world's sets in the layouts of the real data sets: HMDB51's videos and label tables, VISPR's pictures.

A file appears under its final name only when complete, so whatever exists need not be drawn again.
"""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from splavu.runtime.files import write_bytes
from splavu.synthetic.drawing.recording import mpeg4_stream
from splavu.synthetic.drawing.render import ATTRIBUTES, FPS, render
from splavu.synthetic.drawing.scenes import KINDS
from splavu.synthetic.plans import Plan, generator, stage

JPEG_QUALITY = 93


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_bytes(path, text.getvalue().encode())


def encode_avi(frames: np.ndarray) -> bytes:  # [T, H, W, 3] uint8
    """MPEG-4 part 2 in AVI, the container and codec family of HMDB51; one thread, so the bytes repeat."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="avi", options={"fflags": "+bitexact"}) as container:
        stream = mpeg4_stream(container, frames.shape[2], frames.shape[1], bit_rate=3_000_000)
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return buffer.getvalue()


def encode_jpeg(frame: np.ndarray) -> bytes:  # [H, W, 3] uint8, RGB
    import cv2

    _, data = cv2.imencode(".jpg", frame[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY))
    return data.tobytes()


def video_name(plan: Plan) -> str:
    """HMDB51's naming: source, action, visible body, camera motion, people, viewpoint, quality, number."""
    view = {"complete": "fr", "partial": "ri" if plan.index % 2 else "le", "hidden": "ba"}[plan.face]
    people = 1 + int(plan.companion) + 2 * int(plan.group)
    return f"{plan.subject.name}_{plan.action}_f_nm_np{people}_{view}_goo_{plan.index}.avi"


def image_id(split: str, index: int) -> str:
    """VISPR's naming; numbers are unique over both splits."""
    return f"2017_{(0 if split == 'train' else 50_000_000) + 17 * index + 10_000_000:08d}"


def film(plan: Plan, seed: int, name: str, *, num_frames: int | None = None) -> np.ndarray:  # -> [T, H, W, 3]
    """Render a plan of the set `name`; the same arguments give the same pixels wherever and whenever they are drawn."""
    shot = stage(plan, generator(seed, name, "video", plan.index))
    seconds = shot.seconds_offset + np.arange(num_frames or plan.num_frames) / FPS
    return render(shot.scene, shot.people, seconds).frames


def write_video(plan: Plan, seed: int, name: str, folder: Path) -> None:
    path = folder / "videos" / plan.action / video_name(plan)
    if not path.exists():
        write_bytes(path, encode_avi(film(plan, seed, name)))


def write_image(plan: Plan, seed: int, name: str, split: str, folder: Path) -> None:
    path = folder / f"{split}2017" / f"{image_id(split, plan.index)}.jpg"
    if not path.exists():
        write_bytes(path, encode_jpeg(film(plan, seed, name, num_frames=1)[0]))


def write_hmdb_labels(folder: Path, splits: dict[str, Sequence[Plan]], actions: Sequence[str]) -> None:
    """The four label tables, the class list and the private side table of an HMDB51 layout.

    Args:
        folder: The set's folder.
        splits: `train`, `val` and `test` plans, disjoint by subject.
        actions: Class names; a label is the position in this list.
    """
    label_of_action = {action: label for label, action in enumerate(actions)}
    rows = {
        split: [(video_name(plan), label_of_action[plan.action]) for plan in plans] for split, plans in splits.items()
    }
    for split, pairs in rows.items():
        write_csv(folder / f"hmdb51_{split}_labels.csv", ("filename", "label"), pairs)
    write_csv(folder / "hmdb51_labels.csv", ("filename", "label"), (pair for pairs in rows.values() for pair in pairs))
    write_bytes(folder / "hmdb51_classes.json", (json.dumps({"classes": label_of_action}, indent=2) + "\n").encode())
    header = (
        "filename", "subject", "split", *ATTRIBUTES, "action", "background", "num_frames", "favourite_hue", "cadence",
        "amplitude", "arm_swing", "stature",
    )  # fmt: skip
    write_csv(folder / "private_labels.csv", header, (_side_row(p, split) for split in splits for p in splits[split]))


def _side_row(plan: Plan, split: str) -> tuple[Any, ...]:
    who, gait = plan.subject, plan.subject.gait
    numbers = (who.favourite_hue, gait.cadence, gait.amplitude, gait.arm_swing, who.stature)
    measures = (f"{number:.4f}" for number in numbers)
    return (
        video_name(plan), who.name, split, *plan.attributes, plan.action, KINDS[plan.kind].name, plan.num_frames,
        *measures,
    )  # fmt: skip


def write_vispr_labels(folder: Path, splits: dict[str, Sequence[Plan]]) -> None:
    """`train_labels.pkl` and `test_labels.pkl` (image id -> 7 zeros and ones, float64), and who is in each picture."""
    for split, plans in splits.items():
        labels = {image_id(split, plan.index): np.array(plan.attributes, np.float64) for plan in plans}
        write_bytes(folder / f"{split}_labels.pkl", pickle.dumps(labels, protocol=4))
    rows = (
        (image_id(split, plan.index), plan.subject.name, split, *plan.attributes)
        for split, plans in splits.items()
        for plan in plans
    )
    write_csv(folder / "subjects.csv", ("image", "subject", "split", *ATTRIBUTES), rows)
