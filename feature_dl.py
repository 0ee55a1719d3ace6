"""Which data sets this study knows: one row each, read by one class.

The public names (`HMDBFeaturesDataset`, ...) are that class with a row. An item is `(features, label, name)` and, with
`return_fb_frames`, a fourth `(2, D)`: two different static clips of the same video. Labels are 0-based everywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

import config
from splavu import labels as read
from splavu.datasets import DatasetSpec, EvenClips, FeatureDataset, RandomClip, matched, open_split
from splavu.encoders import encoder_spec
from splavu.errors import UserError, nearest
from splavu.stores import FeatureStore


def _ucf(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    return read.read_ucf_labels(folder / f"ucfTrainTestlist/{split}list01.txt", folder / "action_classes.json")


def _smarthome(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, int]:
    path = folder / "tsh_labels.csv"
    rows = read.read_rows(path, ("filename", "split", "label"))
    of_split = {row["filename"] for row in rows if row["split"] == split}
    everything = read.read_csv_labels(path, base=1)
    return {read.without_extension(name): everything[read.without_extension(name)] for name in of_split}


def _of_vectors(file_name: str) -> Callable[[Path, str, Sequence[str]], Mapping[str, NDArray]]:
    """VP label files don't name a split: a split is what its store holds."""

    def vectors(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, NDArray]:
        known = read.read_vector_csv(folder / file_name)
        if absent := [key for key in keys if key not in known]:
            raise UserError(folder / file_name, f"has no label for '{absent[0]}' ({len(absent)} have none)", "label it")
        return {key: known[key] for key in keys}

    return vectors


def _vispr(folder: Path, split: str, keys: Sequence[str]) -> Mapping[str, NDArray]:
    """Stores carry image file names, label files carry ids; the store says with which extension."""
    known = read.read_attribute_pickle(folder / f"{split}_labels.pkl")
    key_of_id = {read.without_extension(key): key for key in keys}
    return {key_of_id.get(name, name): vector for name, vector in known.items()}


CATALOGUE: Mapping[str, DatasetSpec] = {
    spec.name: spec
    for spec in (
        DatasetSpec(
            "k400",
            "features_kinetics",
            "k400",
            400,
            lambda folder, split, keys: read.read_json_labels(folder / f"k400_{split}_labels.json"),
        ),
        DatasetSpec(
            "hmdb51",
            "features_hmdb",
            "hmdb51",
            51,
            lambda folder, split, keys: read.read_csv_labels(folder / f"hmdb51_{split}_labels.csv"),
            splits=("train", "val", "test"),
        ),
        DatasetSpec("ucf101", "features_ucf101", "ucf101", 101, _ucf),
        DatasetSpec("ntu", "features_ntu", "ntu", 60, lambda folder, split, keys: read.read_ntu_actions(keys)),
        DatasetSpec("tsh", "features_tsh", "tsh", 31, _smarthome),
        DatasetSpec("vispr", "features_vispr", "vispr", 7, _vispr, multi_label=True),
        DatasetSpec("vp_hmdb", "features_vp_hmdb", "vp", 5, _of_vectors("vphmdb51_labels_num.csv"), multi_label=True),
        DatasetSpec("vp_ucf", "features_vp_ucf", "vp", 5, _of_vectors("vpucf101_labels_num.csv"), multi_label=True),
    )
}
"""`ar_dataset` or `dataset` in params -> row."""


@dataclass(frozen=True)
class UntrimmedSpec:
    """A data set of long videos: a folder of .npy files, `[T, D]` each, and a file that says what happens when."""

    name: str
    """Its folder below the data root; its features are in `{name}_{file tag}`, as long_videos.py writes them."""
    annotations: str
    """In that folder."""

    def paths(self, encoder: str, data_root: str | None = None) -> tuple[Path, Path]:
        """(annotation file, folder of features), at the roots of config.py or below `data_root`."""
        data, features = config.roots(data_root)
        return data / self.name / self.annotations, features / f"{self.name}_{encoder_spec(encoder).file_tag}"


UNTRIMMED: Mapping[str, UntrimmedSpec] = {
    spec.name: spec
    for spec in (
        UntrimmedSpec("thumos14", "thumos14.json"),
        UntrimmedSpec("ucf_crime", "ucf-i3d.list"),
        UntrimmedSpec("xd_violence", "xd-i3d.list"),
        UntrimmedSpec("shanghaitech", "shanghai-i3d.list"),
    )
}
"""`tad_dataset` or `ad_dataset` in params -> row; for anomaly detection the file is the training list."""


def untrimmed_spec(name: str) -> UntrimmedSpec:
    """The row of `UNTRIMMED` called `name`."""
    if name not in UNTRIMMED:
        raise UserError("tad_dataset, ad_dataset", f"'{name}' is unknown", nearest(name, UNTRIMMED))
    return UNTRIMMED[name]


def dataset_spec(name: str) -> DatasetSpec:
    """The catalogue row called `name`."""
    if name not in CATALOGUE:
        raise UserError("dataset", f"'{name}' is unknown", nearest(name, CATALOGUE))
    return CATALOGUE[name]


def open_dataset(
    name: str, split: str, *, encoder: str, data_root: str | None = None, **options: Any
) -> FeatureDataset:
    """`splavu.datasets.open_split` for the row called `name`, at the roots of config.py or below `data_root`."""
    data, features = config.roots(data_root)
    return open_split(dataset_spec(name), split, features_root=features, labels_root=data, encoder=encoder, **options)


class CatalogueDataset(FeatureDataset):
    """A split of the class's row.

    Args:
        split: 'train', 'test', for HMDB51 also 'val'.
        encoder: As `ft_arch` in params.
        num_modes: None draws one random clip a video; a number takes so many evenly spaced ones, `[M, D]`.
        return_fb_frames: Add two static clips, drawn from `fb_frame_pool` a video.
        seed: Seed of the draws; `set_epoch` changes them.
    """

    row: ClassVar[DatasetSpec]

    def __init__(
        self,
        split: str = "train",
        *,
        encoder: str = "videoMAE",
        num_modes: int | None = None,
        return_fb_frames: bool = False,
        fb_frame_pool: int = 10,
        seed: int = 0,
    ) -> None:
        opened = open_dataset(
            self.row.name,
            split,
            encoder=encoder,
            draw=RandomClip() if num_modes is None else EvenClips(num_modes),
            static_frames=fb_frame_pool if return_fb_frames else 0,
            seed=seed,
        )
        self.__dict__.update(opened.__dict__)


class KineticsFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["k400"]


class HMDBFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["hmdb51"]


class UCFFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["ucf101"]


class NTUFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["ntu"]


class TSHFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["tsh"]


class VISPRFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["vispr"]


class VPHMDBFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["vp_hmdb"]


class VPUCFFeaturesDataset(CatalogueDataset):
    row = CATALOGUE["vp_ucf"]


def privacy_rows(
    dataset: str, split: str, view: str, *, encoder: str, static_frames: int = 10, data_root: str | None = None
) -> tuple[NDArray, NDArray, NDArray, NDArray]:  # [N, D], [N, A], [N], [N]
    """Every served feature of a split with its private attributes.

    Args:
        dataset: A row whose folder holds `private_labels.csv` (filename, subject, attributes), or 'vispr'.
        split: As in the catalogue.
        view: 'temporal' are the released clips, 'static' the static clips (for images: the stored views).
        encoder: As `ft_arch` in params.
        static_frames: How many static clips a video the store holds.
        data_root: Another root than config.DATA.

    Returns:
        Features float32, attributes float32, the cluster (subject; for images the image) and the video of each row.
    """
    spec = dataset_spec(dataset)
    data, features = config.roots(data_root)
    width = encoder_spec(encoder).feature_dim
    is_images = spec.name == "vispr"
    if is_images and view != "static":
        raise UserError(
            "views", f"'{view}' of {dataset}: still images have no clips in time", "use views = ('static',)"
        )
    frames = static_frames if view == "static" and not is_images else 0
    store = FeatureStore(spec.store_path(features, split, encoder, static_frames=frames), feature_dim=width)
    store.verify()
    if is_images:
        attributes = _vispr(data / spec.folder, split, store.keys())
        person_of_key = {key: key for key in attributes}
    else:
        known, person_of_key = read.read_private_labels(data / spec.folder / "private_labels.csv")
        attributes = {key: known[key] for key in store if key in known}
    keys = matched(attributes, store.keys(), label_source=f"the private labels of {dataset}", store_source=store.path)
    rows = [np.atleast_2d(store[key]) for key in keys]
    counts = [len(block) for block in rows]
    videos = np.repeat(np.array(keys), counts)
    return (
        np.concatenate(rows),
        np.repeat(np.stack([attributes[key] for key in keys]), counts, axis=0),
        np.repeat(np.array([person_of_key[key] for key in keys]), counts),
        videos,
    )
