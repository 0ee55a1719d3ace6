"""Made-up data sets in every layout that the catalogue knows: label files, and features in which the labels show."""

from __future__ import annotations

import csv
import json
import pickle
from collections.abc import Iterator

import numpy as np
from conftest import WIDTH

from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.data.splits import CASIA_B_REPETITIONS, NTU_BIAS, NTU_LEFT_OUT_SUBJECTS, NTU_TEST_SUBJECTS
from splavu.stores import StoreWriter

NUM_CLASSES = 3
MADE = {"encoder": "demo", "weights_sha256": "made up", "preprocessing": "{}"}
"""Provenance of the stores."""
Video = tuple[str, str, int, np.ndarray]
"""Key in the store, person, class (0-based), private attributes."""

SPLITS = {"train": range(16), "val": range(16, 22), "test": range(22, 34)}


def everyone(split: str, num_attributes: int = 7) -> Iterator[tuple[int, int, np.ndarray]]:
    """(person, class, attributes): each person in two videos of each class; attribute 1 belongs to the person."""
    for person in SPLITS[split]:
        rng = np.random.default_rng(person)
        for video in range(2 * NUM_CLASSES):
            bits = rng.integers(0, 2, num_attributes).astype(np.float32)
            bits[min(1, num_attributes - 1)] = person % 2
            yield person, video % NUM_CLASSES, bits


def write_features(root, spec, split: str, videos: list[Video], *, width: int = WIDTH) -> None:
    """Class, attributes and noise add up in each clip; static clips and views lack the class."""
    rng = np.random.default_rng(len(spec.name))
    classes, attributes = rng.normal(size=(60, width)), rng.normal(size=(7, width))
    path = spec.store_path(root / "features", split, "demo")
    with StoreWriter(path, attributes=MADE) as writer:
        for index, (key, _, label, bits) in enumerate(videos):
            noise = np.random.default_rng((index, len(split))).normal(size=(3, width)) * 0.5
            clips = (0 if spec.multi_label else classes[label]) + bits @ attributes[: len(bits)] + noise
            writer.add(key, clips[0] if spec.is_images and split == "test" else clips)


def write_csv(path, header: list[str], rows: list[list]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])


def private_table(folder, videos: list[Video]) -> None:
    rows = [[key, person, *map(int, bits)] for key, person, _, bits in videos]
    write_csv(folder / "private_labels.csv", ["filename", "subject", *VISPR_ATTRIBUTES], rows)


def write_plain(root, spec) -> None:
    """k400, hmdb51 and ucf101: label files by name, private labels in a side table."""
    folder, everything = root / "data" / spec.folder, []
    (folder / "ucfTrainTestlist").mkdir(parents=True)
    (folder / "action_classes.json").write_text(json.dumps({"classes": {f"Act{c}": c + 1 for c in range(NUM_CLASSES)}}))
    for split in spec.splits:
        videos = [
            (f"v_Act{label}_g{person:02d}_c{count:03d}", f"p{person}", label, bits)
            for count, (person, label, bits) in enumerate(everyone(split))
        ]
        write_features(root, spec, split, videos)
        everything += videos
        if spec.name == "k400":
            (folder / f"k400_{split}_labels.json").write_text(json.dumps({k: c + 1 for k, _, c, _ in videos}))
        elif spec.name == "hmdb51":
            write_csv(
                folder / f"hmdb51_{split}_labels.csv", ["filename", "label"], [[f"{k}.avi", c] for k, _, c, _ in videos]
            )
        else:
            lines = [f"Act{c}/{k}.avi {c + 1}\n" for k, _, c, _ in videos]
            (folder / f"ucfTrainTestlist/{split}list01.txt").write_text("".join(lines))
    private_table(folder, everything)


def write_ntu(root, spec) -> None:
    train = sorted({f"P{n:03d}" for n in range(1, 41)} - NTU_TEST_SUBJECTS - NTU_LEFT_OUT_SUBJECTS)
    genders: dict[str, list[str]] = {"female": [], "male": []}
    for split, subjects in (("train", train), ("test", sorted(NTU_TEST_SUBJECTS))):
        videos = []
        for place, subject in enumerate(subjects):
            genders["female" if place % 2 else "male"].append(subject)
            for action in (1, 2, 4):
                for repetition in (1, 2, 3):
                    key = f"S001C001{subject}R{repetition:03d}A{action:03d}_rgb"
                    videos.append((key, subject, action - 1, np.array([place % 2], dtype=np.float32)))
        write_features(root, spec, split, videos)
    (root / "data/ntu").mkdir(parents=True)
    (root / "data/ntu/ntu_subject_gender_labels.json").write_text(json.dumps(genders))


def write_smarthome(root, spec) -> None:
    rows = []
    for split in spec.splits:
        videos = []
        for count, (person, label, bits) in enumerate(everyone(split, 1)):
            key = f"Act{label}_p{person:02d}_r{count:02d}_v01_c01"
            videos.append((key, f"p{person:02d}", label, bits))
            rows.append([f"{key}.mp4", f"p{person:02d}", "F" if bits[0] else "M", split, label + 1])
        write_features(root, spec, split, videos)
    write_csv(root / "data/tsh/tsh_labels.csv", ["filename", "subject", "gender", "split", "label"], rows)


def write_casia(root, spec) -> None:
    everything = []
    for split in spec.splits:
        videos = []
        for count, (person, label, bits) in enumerate(everyone(split)):
            number, walk = person + 1 + (60 if split == "test" else 0), list(CASIA_B_REPETITIONS)[label]
            videos.append((f"{number:03d}-{walk}-{count % 2 + 1:02d}-090", f"{number:03d}", label, bits))
        write_features(root, spec, split, videos)
        everything += videos
    private_table(root / "data/casia_b", everything)


def write_vispr(root, spec) -> None:
    (root / "data/vispr").mkdir(parents=True)
    for split in spec.splits:
        pictures = [
            (f"2017_{10_000_000 * (split == 'test') + count:08d}.jpg", "", 0, bits)
            for count, (_, _, bits) in enumerate(everyone(split))
        ]
        write_features(root, spec, split, pictures)
        labels = {key[:-4]: bits.astype(np.float64) for key, _, _, bits in pictures}
        (root / f"data/vispr/{split}_labels.pkl").write_bytes(pickle.dumps(labels, protocol=4))


def write_vp(root, spec) -> None:
    rows = []
    classes = {f"Act{c}": c + 1 for c in range(NUM_CLASSES)}
    for folder in ("hmdb51", "ucf101"):
        (root / "data" / folder).mkdir(parents=True)
    (root / "data/ucf101/action_classes.json").write_text(json.dumps({"classes": classes}))
    for split in spec.splits:
        videos = []
        for count, (person, label, bits) in enumerate(everyone(split, 5)):
            name = (
                f"f{person}_Act{label}_{count}" if "hmdb" in spec.name else f"v_Act{label}_g{person:02d}_c{count:02d}"
            )
            videos.append((f"Act{label}/{name}.avi", f"f{person}", label, bits))
        write_features(root, spec, split, videos)
        rows += [[key, f"[{' '.join(f'{bit:.0f}.' for bit in bits)}]"] for key, _, _, bits in videos]
        names = [[key.split("/")[1], label] for key, _, label, _ in videos]
        write_csv(root / f"data/hmdb51/hmdb51_{split}_labels.csv", ["filename", "label"], names)
    short = "hmdb51" if "hmdb" in spec.name else "ucf101"
    write_csv(root / f"data/vp/vp{short}_labels_num.csv", ["filename", "label"], rows)


LAYOUTS = {
    **dict.fromkeys(("k400", "hmdb51", "ucf101"), write_plain),
    **dict.fromkeys(("ntu", *NTU_BIAS), write_ntu),
    "tsh": write_smarthome,
    "casia_b": write_casia,
    "vispr": write_vispr,
    **dict.fromkeys(("vp_hmdb", "vp_ucf", "vp_hmdb_actions", "vp_ucf_actions"), write_vp),
}
