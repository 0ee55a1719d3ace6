"""The sets that options name, opened, checked and, for training, divided; before anything is trained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mgfn.data.batches import anonymized, read_pooled, split_validation
from mgfn.data.features import FeatureVideos, read_preprocessed
from mgfn.data.ground_truth import GroundTruth
from mgfn.data.lists import read_list, require_both_kinds
from mgfn.option import Options
from mgfn.snippets import full_length_batch


@dataclass(frozen=True)
class TrainingSet:
    """Pooled training videos in memory, and validation videos to be scored at full length."""

    items: list[Tensor]
    """V x [N, L, D + 1]."""
    is_abnormal: NDArray[np.bool_]
    """[V]."""
    feature_size: int
    validation: Callable[[], Iterator[Tensor]]
    """Reads the validation videos, each [1, N, T, D + 1]."""
    validation_is_abnormal: NDArray[np.bool_]


@dataclass(frozen=True)
class TestSet:
    """A test list with its features and ground truth."""

    __test__ = False  # for pytest, which takes classes of this name for its own

    videos: FeatureVideos
    truth: GroundTruth
    anonymize: Callable[[Tensor], Tensor] | None = None

    def __len__(self) -> int:
        return len(self.videos)

    def batch(self, index: int) -> Tensor:  # -> [1, N, T, D + 1]
        """What the network reads of one video, at full length."""
        return full_length_batch(anonymized(self.videos[index], self.anonymize))


def open_training_set(options: Options, *, anonymize: Callable[[Tensor], Tensor] | None) -> TrainingSet:
    """The training list of the options, read, checked and divided."""
    options.required("rgb_list", "features")
    entries = read_list(options.rgb_list, options.datasetname)
    require_both_kinds(entries, options.rgb_list)
    is_abnormal = np.array([entry.is_abnormal for entry in entries])
    train, apart = split_validation(is_abnormal, share=options.validation_share, seed=options.list_seed)
    if options.preprocessed:
        size = None if options.feature_size is None else options.feature_size + 1
        videos = FeatureVideos(entries, options.features, feature_size=size, crops_first=True)
        whole = read_preprocessed(videos, num_segments=options.seg_length)
        items, feature_size = [whole[index] for index in train], videos.feature_size - 1
    else:
        videos = FeatureVideos(entries, options.features, feature_size=options.feature_size)
        items = read_pooled(
            videos, train, num_segments=options.seg_length, anonymize=anonymize, workers=options.workers
        )
        feature_size = videos.feature_size

    def validation() -> Iterator[Tensor]:
        for index in apart:
            if options.preprocessed:
                yield whole[index].unsqueeze(0)
            else:
                yield full_length_batch(anonymized(videos[index], anonymize))

    return TrainingSet(items, is_abnormal[train], feature_size, validation, is_abnormal[apart])


def open_test_set(
    options: Options, *, feature_size: int | None, anonymize: Callable[[Tensor], Tensor] | None
) -> TestSet:
    """The test list of the options, every header and label checked."""
    options.required("test_rgb_list", "gt", *([] if options.test_features else ["features"]))
    entries = read_list(options.test_rgb_list, options.datasetname)
    videos = FeatureVideos(entries, options.test_features or options.features, feature_size=feature_size)
    truth = GroundTruth(
        options.gt,
        entries,
        [file.num_snippets for file in videos.files],
        frames_per_snippet=options.frames_per_snippet,
        dataset=options.datasetname,
        mismatch=options.length_mismatch,
    )
    return TestSet(videos, truth, anonymize)


def anonymizer_of(options: Options, device: torch.device) -> Callable[[Tensor], Tensor] | None:
    """`--aam` as a function of a crop's features [T, D]; None without it."""
    if options.aam is None:
        return None
    # Imported late: without --aam, testing needs nothing else of this repository.
    from mgfn.anonymize import anonymizing

    return anonymizing(options.aam, device, serving=options.aam_serving)
