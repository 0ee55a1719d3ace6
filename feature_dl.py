"""What scripts open: the data sets of the catalogue, at this study's roots, each read by one class.

The public names (`HMDBFeaturesDataset`, ...) are that class with a row. An item is `(features, label, name)` and, with
`return_fb_frames`, a fourth `(2, D)`: two different static clips of the same video. Labels are 0-based everywhere.
"""

from __future__ import annotations

from typing import ClassVar

from splavu.data.datasets import DatasetSpec, EvenClips, FeatureDataset, RandomClip
from study.datasets.catalog import CATALOGUE, STORED, VP_LABELS, film_of
from study.datasets.loading import dataset_spec, open_dataset, people, privacy_rows
from study.datasets.untrimmed import UNTRIMMED, UntrimmedSpec, untrimmed_spec

__all__ = [
    "CATALOGUE",
    "STORED",
    "UNTRIMMED",
    "VP_LABELS",
    "CatalogueDataset",
    "HMDBFeaturesDataset",
    "KineticsFeaturesDataset",
    "NTUFeaturesDataset",
    "TSHFeaturesDataset",
    "UCFFeaturesDataset",
    "UntrimmedSpec",
    "VISPRFeaturesDataset",
    "VPHMDBFeaturesDataset",
    "VPUCFFeaturesDataset",
    "dataset_spec",
    "film_of",
    "open_dataset",
    "people",
    "privacy_rows",
    "untrimmed_spec",
]


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
