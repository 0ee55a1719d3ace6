"""Made-up untrimmed videos for detection and anomaly detection, beside the clips of a made-up study."""

from __future__ import annotations

import shutil

import numpy as np
from conftest import Study
from mgfn_world import write_world as write_anomalies
from thumos_world import write_config, write_videos

OPTIONS = "--widths 64 64 64 --depths1 1 --depths2 1 --depths3 1 --seg-length 8"
"""MGFN's, for a network small enough for tests; TriDet's are in the study's small.yaml."""


def add_untrimmed(study: Study, *, num_train: int = 5) -> None:
    """THUMOS14's and UCF-Crime's layouts with features of the demo encoder's width; of the latter 2 x `num_train`."""
    write_videos(study.data / "thumos14/thumos14.json", study.features / "thumos14_demo")
    write_config(study.root / "small.yaml", json_file="elsewhere.json", feat_folder="elsewhere")
    anomalies = write_anomalies(study.root / "anomalies", num_train=num_train, num_test=1)
    (study.data / "ucf_crime").mkdir()
    shutil.copy(anomalies.root / "train.list", study.data / "ucf_crime/ucf-i3d.list")
    (study.features / "ucf_crime_demo").mkdir()
    for path in anomalies.features.glob("*.npy"):
        np.save(study.features / "ucf_crime_demo" / path.name, np.tile(np.load(path), 16))  # 12 wide -> 192
