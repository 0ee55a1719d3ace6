"""The rows of untrimmed videos, whose annotations have times, and of annotations of other data sets.

Note: the features of an untrimmed video are one file, `VIDEO.npy`, in a folder per data set and encoder; there is no
store per split. The annotations say which video is in which split.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgfn.data.lists import read_list
from mgfn.errors import InputError
from splavu.data.datasets import Layout
from splavu.data.encoders import encoder_spec
from splavu.data.labels import read_json
from splavu.data.pahmdb51 import read_pahmdb51
from splavu.errors import UserError, as_user_errors, nearest
from study import config


@dataclass(frozen=True)
class UntrimmedSpec:
    """A data set of long videos: a folder of .npy files, `[T, D]` each, and files that say what happens when."""

    name: str
    """Its folder below the data root; its features are in `{name}_{file tag}`, as long_videos.py writes them."""
    annotations: str
    """In that folder."""
    read_names: Callable[[Path], Mapping[str, Sequence[str]]]
    """Its folder -> {split: names of the videos}."""
    num_classes: int
    """Actions, or kinds of anomaly."""
    layout: Layout
    list_rules: str = ""
    """Of a set for anomaly detection: how its lists' names tell normal from abnormal, as `mgfn` calls it."""

    def paths(self, encoder: str, data_root: str | None = None) -> tuple[Path, Path]:
        """(annotation file, folder of features), at the roots of config.py or below `data_root`."""
        data, features = config.roots(data_root)
        return data / self.name / self.annotations, features / f"{self.name}_{encoder_spec(encoder).file_tag}"


def _thumos_names(folder: Path) -> Mapping[str, list[str]]:
    path = folder / "thumos14.json"
    if not path.is_file():
        raise UserError(path, "no such annotation file", "it says which video is of which split; see docs/data.md")
    database = read_json(path).get("database")
    if not isinstance(database, dict) or not all(isinstance(video, dict) for video in database.values()):
        raise UserError(path, "is no THUMOS14 annotation file (JSON with a 'database')", "use the published one")
    names: dict[str, list[str]] = {"validation": [], "test": []}
    for name, video in database.items():
        names.setdefault(str(video.get("subset", "of no subset")).lower(), []).append(name)
    return names


def _list_row(
    name: str, stem: str, rules: str, truth: str, num_classes: int, num_videos: Mapping[str, int], note: str
) -> UntrimmedSpec:
    """A set for anomaly detection: two lists of feature files, of whose paths the last part counts."""
    files = {"train": f"{stem}-i3d.list", "test": f"{stem}-i3d-test.list"}

    def names(folder: Path) -> Mapping[str, list[str]]:
        with as_user_errors(InputError):
            return {split: [entry.name for entry in read_list(folder / file, rules)] for split, file in files.items()}

    layout = Layout(
        f"{name}/videos",
        tuple(f"{name}/{file}" for file in (*files.values(), truth)),
        "last part of a line of the list, without .npy",
        num_videos,
        note=note,
    )
    return UntrimmedSpec(name, files["train"], names, num_classes, layout, rules)


UNTRIMMED: Mapping[str, UntrimmedSpec] = {
    spec.name: spec
    for spec in (
        UntrimmedSpec(
            "thumos14",
            "thumos14.json",
            _thumos_names,
            20,
            Layout(
                "thumos14/videos",
                ("thumos14/thumos14.json",),
                "video_validation_ or video_test_ and seven digits",
                {"validation": 200, "test": 212},
                note="of 213 test videos the annotations leave out video_test_0001292",
            ),
        ),
        _list_row(
            "ucf_crime", "ucf", "UCF", "gt-ucf.npy", 13, {"train": 1610, "test": 290}, "weak labels: normal or not"
        ),
        _list_row(
            "xd_violence",
            "xd",
            "XD",
            "gt-xd.npy",
            6,
            {"train": 3954, "test": 800},
            "the list in use names 3953 to train on",
        ),
        _list_row(
            "shanghaitech",
            "shanghai",
            "ST",
            "gt-sh.npy",
            1,
            {"train": 238, "test": 199},
            "the weakly supervised split; half of the set is published as folders of pictures, to be made videos first",
        ),
    )
}
"""`tad_dataset` or `ad_dataset` in params -> row; for anomaly detection the annotations are the training list."""


@dataclass(frozen=True)
class AnnotatedSpec:
    """Annotations of another set's videos, whose stores hold their features."""

    name: str
    origin: str
    """The row of those videos."""
    read_names: Callable[[Path], Sequence[str]]
    """Data root -> names of the videos."""
    layout: Layout


ANNOTATED: Mapping[str, AnnotatedSpec] = {
    "pa_hmdb51": AnnotatedSpec(
        "pa_hmdb51",
        "hmdb51",
        lambda data: list(read_pahmdb51(data / "pa_hmdb51/PrivacyAttributes")),
        Layout("hmdb51/videos", ("pa_hmdb51/PrivacyAttributes",), "file name without extension", {"all": 515}),
    )
}


def untrimmed_spec(name: str) -> UntrimmedSpec:
    """The row of `UNTRIMMED` called `name`."""
    if name not in UNTRIMMED:
        raise UserError("tad_dataset, ad_dataset", f"'{name}' is unknown", nearest(name, UNTRIMMED))
    return UNTRIMMED[name]
