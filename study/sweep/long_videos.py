"""Long videos as the use probes of a sweep take them: steps of training videos, and what happens at each."""

from __future__ import annotations

import numpy as np

from mgfn.data.features import FeatureVideos
from mgfn.data.lists import read_list
from mgfn.errors import InputError as AnomalyError
from splavu.errors import as_user_errors
from splavu.tuning.linear_probes import LongVideos
from study import config
from study.datasets.untrimmed import untrimmed_spec
from tridet import config as tridet_config
from tridet.errors import InputError as DetectionError
from tridet.thumos14 import ThumosDataset


def with_moments(name: str, encoder: str, tad_config: str, data_root: str | None) -> LongVideos:
    """Training videos of a data set with segments; a step lies in a segment if its clip's centre does.

    Raises:
        UserError: The annotations or the features aren't there, or are faulty.
    """
    json_file, feat_folder = untrimmed_spec(name).paths(encoder, data_root)
    with as_user_errors(DetectionError):
        places = {"dataset": {"json_file": str(json_file), "feat_folder": str(feat_folder)}}
        settings = tridet_config.load(config.HERE / tad_config, places)
        data = ThumosDataset(settings.dataset, settings.train_split, training=False)
        items = [data.item(index) for index in range(len(data))]
    labels = []
    for item in items:
        steps = np.arange(item["feats"].shape[1])[:, None]  # [T, 1]
        start, end = item["segments"].numpy().T  # [N] each, in steps
        inside = (steps >= start) & (steps <= end)  # [T, N]
        labels.append(inside @ np.eye(settings.dataset.num_classes)[item["labels"].numpy()] > 0)
    return LongVideos([item["feats"].T.numpy() for item in items], labels)


def with_anomalies(name: str, encoder: str, data_root: str | None) -> LongVideos:
    """Training videos of a data set for anomaly detection, each labelled as a whole; of several crops the mean.

    Raises:
        UserError: The list or the features aren't there, or are faulty.
    """
    spec = untrimmed_spec(name)
    train_list, feat_folder = spec.paths(encoder, data_root)
    with as_user_errors(AnomalyError):
        entries = read_list(train_list, spec.list_rules)
        videos = FeatureVideos(entries, feat_folder)
        features = [videos[index].mean(dim=1).numpy() for index in range(len(videos))]
    return LongVideos(features, [np.array([float(entry.is_abnormal)]) for entry in entries])
