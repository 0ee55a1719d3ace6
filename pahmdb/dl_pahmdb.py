"""PA-HMDB51: the attributes of every frame of some HMDB51 videos, brought together with the features of their clips.

Its videos are HMDB51's, so their features lie in HMDB51's stores, whichever split they are in; the videos without
annotations are the training data of heads for action recognition.

Note: the videos are cut from films, and clips of one film show the same people. So folds and intervals go by film
(`Rows.clusters`), which follows from the file's name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from splavu.attacks.rows import Rows
from splavu.data.labels import VISPR_ATTRIBUTES
from splavu.data.pahmdb51 import PAHMDB51_VALUES, FrameLabels, clip_labels, read_pahmdb51
from splavu.data.splits import film_of
from splavu.errors import UserError
from splavu.stores import FeatureReader, FeatureStore
from splavu.stores.reader import Examined
from study import config
from study.datasets.loading import dataset_spec

ANNOTATIONS = "pa_hmdb51/PrivacyAttributes"
"""Below the data root: a JSON file an action."""

CLIP_LENGTH = 16
"""Frames a clip."""

LabelSet = Literal["values", "binary", "vispr"]

ATTRIBUTES: Mapping[LabelSet, tuple[str, ...]] = {
    "values": tuple(f"{name}={value}" for name, values in PAHMDB51_VALUES.items() for value in values),
    "binary": tuple(PAHMDB51_VALUES),
    "vispr": tuple(name for name in VISPR_ATTRIBUTES if name != "social_relationship"),
}
"""Names of the label columns: every value of every attribute; the attributes, 1 unless the value is 0; those that VISPR
knows too, for attackers trained there (social relationship has no counterpart)."""


@dataclass(frozen=True)
class PaHmdb51:
    """The annotated videos, and features and actions of all HMDB51 videos."""

    features: JoinedStores
    """[K, D] a video."""
    annotated: Mapping[str, FrameLabels]
    """By video, in the order of their names."""
    actions: Mapping[str, int]
    """Class of each video, 0-based."""

    @property
    def others(self) -> list[str]:
        """The videos without annotations."""
        return [video for video in self.features if video not in self.annotated]

    def rows(self, labels: LabelSet) -> Rows:
        """A row a clip of the annotated videos; labels are NaN where no frame of a clip has one.

        Raises:
            UserError: The labels and the features of a video are of different lengths.
        """
        self.features.verify(self.annotated)
        blocks = [np.atleast_2d(self.features[video]) for video in self.annotated]
        counts = [len(block) for block in blocks]
        of_clips = [_of_clips(v, f, k, labels) for (v, f), k in zip(self.annotated.items(), counts, strict=True)]
        films = np.array([film(video, frames) for video, frames in self.annotated.items()])
        videos = np.array(list(self.annotated))
        return Rows(
            np.concatenate(blocks), np.concatenate(of_clips), np.repeat(films, counts), np.repeat(videos, counts)
        )


def read_dataset(*, encoder: str, feature_dim: int, data_root: str | None = None) -> PaHmdb51:
    """The annotations, with features from HMDB51's stores of all splits; a split without a store is left out.

    Args:
        encoder: As `ft_arch` in params.
        feature_dim: D.
        data_root: Another root than config.DATA, named from the repository's folder.

    Raises:
        UserError: Besides damaged files, annotated videos without features or without an action, a video in two stores,
            a video whose name has no film.
    """
    data, features = config.roots(data_root)
    annotated = dict(sorted(read_pahmdb51(data / ANNOTATIONS).items()))
    for video, frames in annotated.items():
        film(video, frames)
    spec = dataset_spec("hmdb51")
    paths = {split: spec.store_path(features, split, encoder) for split in spec.splits}
    stores = {split: FeatureStore(path, feature_dim=feature_dim) for split, path in paths.items() if path.is_file()}
    if not stores:
        raise UserError(paths["test"], "there is no feature store of HMDB51, of any split", "extract features first")
    joined = JoinedStores(list(stores.values()))
    if absent := [video for video in annotated if video not in joined]:
        raise UserError(
            data / ANNOTATIONS,
            f"'{absent[0]}' has no features; {len(absent)} of {len(annotated)} annotated videos have none",
            f"extract them into a store of HMDB51 ({', '.join(path.name for path in paths.values())})",
        )
    actions: dict[str, int] = {}
    for split, store in stores.items():
        actions |= spec.read_labels(data / spec.folder, split, store.keys())
    if absent := [video for video in joined if video not in actions]:
        problem = f"no action label of '{absent[0]}', whose features there are ({len(absent)} videos have none)"
        raise UserError(data / spec.folder, problem, "label them, or extract the labelled videos only")
    return PaHmdb51(joined, annotated, actions)


def film(video: str, frames: FrameLabels) -> str:
    """The film a video is cut from: what stands before the action in its name.

    Raises:
        UserError: The action isn't in the name.
    """
    if f"_{frames.action}_" not in video:
        problem = f"has no '_{frames.action}_' in its name, so the film that it was cut from is unknown"
        raise UserError(video, problem, "annotate it in the file of its action, under its name in HMDB51")
    return film_of(f"{frames.action}/{video}")


class JoinedStores(FeatureReader):
    """Several stores of different videos, read as one.

    Raises:
        UserError: A video is in two of them.
    """

    def __init__(self, stores: Sequence[FeatureReader]) -> None:
        self.path, self.attributes = stores[0].path.parent, stores[0].attributes
        self._feature_dim = stores[0].feature_dim
        self._store_of: dict[str, FeatureReader] = {}
        for store in stores:
            for key in store:
                if key in self._store_of:
                    problem = f"'{key}' is in {self._store_of[key].path.name} too"
                    raise UserError(store.path, problem, "keep one of the two")
                self._store_of[key] = store

    def keys(self) -> list[str]:
        return sorted(self._store_of)

    def __getitem__(self, key: str) -> NDArray:
        self._require(key)
        return self._store_of[key][key]

    def _header(self, key: str) -> tuple[tuple[int, ...], np.dtype]:
        return self._store_of[key]._header(key)

    def files(self) -> list[Path]:
        return [file for store in dict.fromkeys(self._store_of.values()) for file in store.files()]

    def examined(self, key: str) -> Examined:
        self._require(key)
        return self._store_of[key].examined(key)


def _of_clips(video: str, frames: FrameLabels, num_clips: int, labels: LabelSet) -> NDArray:  # -> [K, A]
    """The labels of a video's clips.

    Labels may cover one clip more than there are features: decoders disagree about the last frame of some files.
    """
    if frames.num_frames // CLIP_LENGTH > num_clips + 1:
        problem = f"has ranges to frame {frames.num_frames - 1}, but features of {num_clips} clips of {CLIP_LENGTH}"
        raise UserError(video, problem, "extract the features of the whole video, or mend the ranges")
    return clip_labels(_of_frames(frames, labels), num_clips, name=video, clip_length=CLIP_LENGTH)


def _of_frames(frames: FrameLabels, labels: LabelSet) -> NDArray[np.float32]:  # -> [F, A]
    if labels == "binary":
        return frames.binary()
    if labels == "vispr":
        return frames.as_vispr()[:, [VISPR_ATTRIBUTES.index(name) for name in ATTRIBUTES["vispr"]]]
    held = [frames.values[name] for name in PAHMDB51_VALUES]
    known = [np.where(values.any(axis=1, keepdims=True), values, np.float32(np.nan)) for values in held]
    return np.concatenate(known, axis=1).astype(np.float32)
