"""Opens the data sets of the catalogue at this study's roots."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from splavu.attacks.rows import Rows
from splavu.data.csv_table import read_rows
from splavu.data.datasets import FeatureDataset, open_split
from splavu.data.encoders import encoder_spec
from splavu.data.private_labels import PrivateLabels
from splavu.data.subjects import Subject, read_subjects
from splavu.errors import UserError
from splavu.runtime import limits
from splavu.stores import FeatureStore
from study import config
from study.datasets.catalog import WITH_SUBJECTS, CatalogueRow, row_of

logger = logging.getLogger(__name__)


def dataset_spec(name: str, *, data_root: str | None = None) -> CatalogueRow:
    """The catalogue row called `name`; that of a user's own videos, 'folder:NAME', is built from their labels.csv."""
    return row_of(name, config.roots(data_root)[0])


def open_dataset(
    name: str, split: str, *, encoder: str, data_root: str | None = None, **options: Any
) -> FeatureDataset:
    """`splavu.data.datasets.open_split` for the row called `name`, at the roots of config.py or below `data_root`."""
    data, features = config.roots(data_root)
    return open_split(
        dataset_spec(name, data_root=data_root),
        split,
        features_root=features,
        labels_root=data,
        encoder=encoder,
        **options,
    )


def subjects(name: str, keys: Sequence[str], *, data_root: str | None = None) -> Mapping[str, Subject]:
    """Subject and perceived gender of each video of the row called `name`.

    Raises:
        UserError: The data set has no such labels, or none for one of the videos.
    """
    spec = dataset_spec(name, data_root=data_root)
    if spec.read_subjects is None:
        raise UserError("dataset", f"'{name}' has no labels of gender", f"known: {', '.join(WITH_SUBJECTS)}")
    return spec.read_subjects(config.roots(data_root)[0] / spec.folder, keys)


def known_subjects(name: str, keys: Sequence[str], *, data_root: str | None = None) -> Mapping[str, str] | None:
    """Who is in those of the videos of which the data set says it; None where it says so of none.

    Raises:
        UserError: A file that says it is damaged.
    """
    spec = dataset_spec(name, data_root=data_root)
    if spec.read_subjects is not None:
        return {key: subject.name for key, subject in subjects(name, keys, data_root=data_root).items()}
    path = config.roots(data_root)[0] / spec.folder / "private_labels.csv"
    known = path.is_file() and "subject" in read_rows(path)[0]
    return read_subjects(path, keys).subjects if known else None


def private_labels(name: str, split: str, keys: Sequence[str], *, data_root: str | None = None) -> PrivateLabels:
    """What an attacker is after, of some of the videos `keys` of the row called `name`.

    Raises:
        UserError: The data set has no private labels of its own, and no `private_labels.csv` lies in its folder.
    """
    spec = dataset_spec(name, data_root=data_root)
    return spec.read_private(config.roots(data_root)[0] / spec.folder, split, keys)


def privacy_rows(
    dataset: str, split: str, view: str, *, encoder: str, static_frames: int = 10, data_root: str | None = None
) -> tuple[Rows, tuple[str, ...]]:
    """Every released feature of those videos of a split whose private attributes are known.

    Args:
        dataset: A row of the catalogue; one without private labels of its own needs `private_labels.csv` (filename,
            subject, VISPR's attributes) in its folder, of some of its videos at least.
        split: As in the catalogue.
        view: 'temporal' are the released clips, 'static' the static clips (for images: the stored views).
        encoder: As `ft_arch` in params.
        static_frames: Static clips per video in the store.
        data_root: Another root than config.DATA.

    Returns:
        A row per feature, whose cluster is the subject; and the names of the attributes.
    """
    spec = dataset_spec(dataset, data_root=data_root)
    data, features = config.roots(data_root)
    if spec.is_images and view != "static":
        raise UserError(
            "views", f"'{view}' of {dataset}: still images have no clips in time", "use views = ('static',)"
        )
    frames = static_frames if view == "static" and not spec.is_images else 0
    path = spec.store_path(features, split, encoder, static_frames=frames)
    store = FeatureStore(path, feature_dim=encoder_spec(encoder).feature_dim)
    stored = spec.keys(data, split, store.keys())
    private = private_labels(dataset, split, stored, data_root=data_root)
    keys = [key for key in stored if key in private.values]
    if not keys:
        raise UserError(
            path, f"none of its {len(stored)} videos is in the private labels of {dataset}", "label some of them"
        )
    if len(keys) < len(stored):
        logger.info("%s: %d of %d videos have private labels", path, len(keys), len(stored))
    limits.require(2 * store.num_bytes(keys), path, "reading its features")
    blocks = [store.verified(key).reshape(-1, store.feature_dim) for key in keys]
    counts = [len(block) for block in blocks]
    rows = Rows(
        np.concatenate(blocks),
        np.repeat(np.stack([private.values[key] for key in keys]), counts, axis=0),
        np.repeat(np.array([private.subjects[key] for key in keys]), counts),
        np.repeat(np.array(keys), counts),
    )
    return rows, private.attributes
