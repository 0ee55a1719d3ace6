"""The data sets of the catalogue, at this study's roots, each read by one class.

Each row of `study.datasets.catalog` with a `public_class` is a class of that name here: `HMDBFeaturesDataset`,
`KineticsFeaturesDataset`, `UCFFeaturesDataset`, `NTUFeaturesDataset`, `TSHFeaturesDataset`, `VISPRFeaturesDataset`,
`VPHMDBFeaturesDataset`, `VPUCFFeaturesDataset`. An item is `(features, label, name)` and, with `return_fb_frames`, a
fourth `(2, D)`: two different static clips of the same video. Labels count from 0 everywhere.
"""

from __future__ import annotations

import functools
from typing import ClassVar

from splavu.data.datasets import EvenClips, FeatureDataset, RandomClip
from splavu.data.splits import film_of
from study.datasets.catalog import CATALOGUE, STORED, CatalogueRow
from study.datasets.loading import dataset_spec, open_dataset, privacy_rows, subjects
from study.datasets.untrimmed import UNTRIMMED, UntrimmedSpec, untrimmed_spec

__all__ = [  # pyright: ignore[reportUnsupportedDunderAll]  classes are made when they are asked for
    "CATALOGUE",
    "STORED",
    "UNTRIMMED",
    "CatalogueDataset",
    "UntrimmedSpec",
    "dataset_spec",
    "film_of",
    "open_dataset",
    "people",
    "privacy_rows",
    "subjects",
    "untrimmed_spec",
    *filter(None, (row.public_class for row in CATALOGUE.values())),
]

people = subjects  # the former name, for one version


class CatalogueDataset(FeatureDataset):
    """A split of the data set in the class's row.

    Args:
        split: 'train', 'test', for HMDB51 also 'val'.
        encoder: As `ft_arch` in params.
        num_modes: None draws one random clip per video; a number takes that many evenly spaced ones, `[M, D]`.
        return_fb_frames: Add two static clips, drawn from the `fb_frame_pool` of the video.
        seed: Seed of the draws; `set_epoch` changes them.
    """

    row: ClassVar[CatalogueRow]

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


@functools.cache
def __getattr__(name: str) -> type[CatalogueDataset]:
    """The class called `name`: `CatalogueDataset` with the row that names it."""
    for row in CATALOGUE.values():
        if row.public_class == name:
            return type(name, (CatalogueDataset,), {"row": row, "__module__": __name__})
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
