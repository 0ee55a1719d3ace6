"""What closed forms are fitted to: clips of training subjects, with what is known of their videos."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splavu.errors import UserError

if TYPE_CHECKING:  # torch is imported when something is fitted
    from splavu.anonymizers.base import Anonymizer
    from splavu.anonymizers.fitted_to import FittedTo
    from splavu.data.datasets import FeatureDataset

logger = logging.getLogger(__name__)

LARGEST = 1e15
"""Absolute value of features at most, and one over their spread: squares and sums of them are to fit float32."""
MOST_CLIPS = 100_000
"""At most this many clips of a data set, evenly taken, are used: about a hundred for each dimension of the widest."""


@dataclass(frozen=True)
class FitData:
    """Clips of training subjects, a row each; what no closed form asked for is None."""

    features: NDArray[np.float32]  # [N, D]
    static: NDArray[np.float32] | None = None  # [N, D], the mean over the static clips of the row's video
    classes: NDArray | None = None  # [N], the action
    private: NDArray[np.float32] | None = None  # [N, A] of 0 and 1; NaN for unknown
    videos: NDArray | None = None  # [N], the name or number of the row's video
    attributes: tuple[str, ...] = ()
    """Names of the A private attributes."""
    subjects: NDArray | None = None  # [N], who is in the row's clip; "" for unknown
    share: float = 1.0
    """Of the clips of its videos that are among them."""

    @classmethod
    def of(
        cls,
        dataset: FeatureDataset,
        *,
        private: Mapping[str, NDArray[np.float32]] | None = None,
        attributes: Sequence[str] = (),
        subjects: Mapping[str, str] | None = None,
        limit: int = MOST_CLIPS,
    ) -> FitData:
        """The clips of a data set.

        Args:
            dataset: With labels and static clips as far as closed forms ask for them.
            private: Key -> [A]; videos that it doesn't name are unknown.
            attributes: Names of its A values.
            subjects: Key -> who is in it; in videos that it doesn't name nobody is known. None: nobody ever is.
            limit: At most so many clips.
        """
        share = 1.0
        owners = np.repeat(np.arange(len(dataset)), dataset.clips.num_clips)  # [clips]
        first = np.cumsum(dataset.clips.num_clips) - dataset.clips.num_clips  # [V]
        rows = dataset.clips.start[owners] + np.arange(len(owners)) - first[owners]
        if len(rows) > limit:
            taken = np.linspace(0, len(rows) - 1, limit).round().astype(np.int64)
            logger.info("closed forms are fitted to %d of %d clips", limit, len(rows))
            share = limit / len(rows)
            owners, rows = owners[taken], rows[taken]
        static = None
        if dataset.static is not None:
            videos, place = np.unique(owners, return_inverse=True)
            table = dataset.static
            means = [table.rows[at : at + num].mean(axis=0) for at, num in _spans(table, videos)]
            static = np.stack(means)[place]
        known = None
        if private is not None:
            unknown = np.full(len(attributes), np.nan, np.float32)
            known = np.stack([private.get(key, unknown) for key in dataset.keys])[owners].astype(np.float32)
        classes = None if dataset.labels is None or dataset.labels.ndim > 1 else dataset.labels[owners]
        who = None if subjects is None else np.array([subjects.get(key, "") for key in dataset.keys])[owners]
        return cls(np.asarray(dataset.clips.rows[rows]), static, classes, known, owners, tuple(attributes), who, share)

    @property
    def num_videos(self) -> int:
        """Different videos."""
        return 0 if self.videos is None else len(np.unique(self.videos))

    @property
    def unit(self) -> str:
        """What `owners` are: 'subject' where they are known, else 'video', else 'clip'."""
        return "subject" if self.subjects is not None else "video" if self.videos is not None else "clip"

    @property
    def owners(self) -> NDArray[np.int64]:  # [N]
        """A number for whom each row is of, by `unit`; -1 for unknown subjects."""
        if self.subjects is not None:
            numbers = np.unique(self.subjects, return_inverse=True)[1].astype(np.int64)
            return np.where(self.subjects == "", -1, numbers)
        if self.videos is not None:
            return np.unique(self.videos, return_inverse=True)[1].astype(np.int64)
        return np.arange(len(self.features))

    @property
    def fitted_to(self) -> FittedTo:
        """What checkpoints record of these clips, where they are raw."""
        from splavu.anonymizers.fitted_to import FittedTo

        return FittedTo.of(self.features, self.owners, share=self.share)

    @property
    def variance(self) -> float:
        """Of the features, the mean over dimensions."""
        return float(self.features.var(axis=0, dtype=np.float64).mean())

    def after(self, stage: Anonymizer) -> FitData:
        """The same clips and static clips as a stage releases them."""
        from splavu.anonymizers.apply import apply_to_array

        static = None if self.static is None else apply_to_array(stage, self.static)
        return replace(self, features=apply_to_array(stage, self.features), static=static)

    def needed(self, name: str, *, by: str = "the closed form") -> NDArray:
        """The field `name`, which the closed form `by` can't do without.

        Raises:
            UserError: It is None.
        """
        if (value := getattr(self, name)) is None:
            raise UserError(name, f"is missing, and {by} is fitted to it", "give the data")
        return value

    def take(self, rows: NDArray) -> FitData:
        """Some of the rows, by number or by mask."""
        names = ("features", "static", "classes", "private", "videos", "subjects")
        columns = {name: getattr(self, name) for name in names}
        return replace(self, **{name: value[rows] for name, value in columns.items() if value is not None})

    def with_known_private(self) -> FitData:
        """The rows whose private attributes are all known.

        Raises:
            UserError: There is none.
        """
        known = np.asarray(~np.isnan(self.needed("private")).any(axis=1))
        if known.all():
            return self
        if not known.any():
            raise UserError("private labels", "are unknown for every training clip", "label some of the videos")
        logger.warning("%d of %d clips have no private label and were left out", (~known).sum(), len(known))
        return self.take(known)

    def refuse_degenerate(self) -> None:
        """Refuse features by which no closed form could be fitted.

        Raises:
            UserError: They are all the same, or too large or too close together for sums of squares.
        """
        low, high = self.features.min(axis=0), self.features.max(axis=0)
        largest = float(max(high.max(), -low.min()))
        spread = float((high.astype(np.float64) - low).max())
        if spread == 0:
            raise UserError("features", "are all the same: they have no directions", "give more videos")
        if largest > LARGEST:
            raise UserError("features", f"reach {largest:.2g}, {LARGEST:.0g} at most", "scale them down")
        if spread < 1 / LARGEST:
            raise UserError(
                "features", f"differ by {spread:.2g} at most, float32 needs {1 / LARGEST:.0g}", "scale them up"
            )


def _spans(table: Any, videos: NDArray) -> list[tuple[int, int]]:
    return list(zip(table.start[videos].tolist(), table.num_clips[videos].tolist(), strict=True))
