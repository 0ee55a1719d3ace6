"""List files: one feature path a line, of which only the file name counts; features lie where an option says.

Normal or abnormal follows from the name or a second column (0, 1, normal, abnormal), never from the line's number: the
public ShanghaiTech lists, for one, are sorted by name, so "the first 63 are abnormal" would mislabel most of them. The
column may add the kinds of anomaly, `1:Fighting` or `abnormal:Fighting-Riot`, for names that are hashes and say
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mgfn.errors import InputError, nearest


@dataclass(frozen=True)
class Entry:
    """A video of a list."""

    name: str
    is_abnormal: bool
    classes: tuple[str, ...]
    """Kinds of anomaly by the name, for the breakdown; empty where the name doesn't say."""
    place: str
    """`FILE line NUMBER`, for messages."""


Kind = tuple[bool, tuple[str, ...]]
"""(is abnormal, classes) of a name."""

XD_CLASSES = {
    "B1": "Fighting",
    "B2": "Shooting",
    "B4": "Riot",
    "B5": "Abuse",
    "B6": "CarAccident",
    "G": "Explosion",
}


def ucf_kind(name: str) -> Kind | None:
    """`Normal_Videos_003_x264` is normal; `Abuse028_x264` is abnormal, of class Abuse."""
    if "Normal_" in name:
        return False, ()
    match = re.match(r"([A-Za-z]+)\d", name)
    return (True, (match[1],)) if match else None


def xd_kind(name: str) -> Kind | None:
    """`..._label_A` is normal; `..._label_B2-G-0` is abnormal, Shooting and Explosion."""
    match = re.search(r"_label_((?:A|[BG]\d?|0)(?:-(?:[BG]\d?|0))*)(?:__\d+)?$", name)
    if not match:
        return None
    codes = match[1].split("-")
    return ("A" not in codes), tuple(XD_CLASSES[code] for code in codes if code in XD_CLASSES)


def shanghai_kind(name: str) -> Kind | None:
    """`01_0014`, four digits, is of the original test part, where every video holds an anomaly; `01_001` is normal."""
    match = re.fullmatch(r"\d\d_(\d{3,4})", name)
    return (len(match[1]) == 4, ()) if match else None


KIND_OF_NAME: Mapping[str, Callable[[str], Kind | None]] = {"UCF": ucf_kind, "XD": xd_kind, "ST": shanghai_kind}
"""How each data set's names distinguish normal from abnormal; None where a name doesn't say."""

HASH = re.compile(r"[0-9a-f]{32}(__\d+)?")
"""A name that says nothing: released under a secret key."""

LABELS = {"0": False, "1": True, "normal": False, "abnormal": True}


def read_list(path: str | Path, dataset: str) -> list[Entry]:
    """The videos of a list file, in order.

    Raises:
        InputError: No such file, no video in it, a video twice, a name without a label in a list without a column
            of labels, or a column that some lines lack.
    """
    if dataset not in KIND_OF_NAME:
        raise InputError("datasetname", f"'{dataset}' is unknown", nearest(dataset, KIND_OF_NAME))
    if Path(path).exists() and not Path(path).is_file():
        raise InputError(path, "is no regular file", "give one feature path a line")
    try:
        text = Path(path).read_text(encoding="utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise InputError(path, "there is no such list") from None
    except OSError as error:
        raise InputError(path, f"can't be read ({error.strerror})") from None
    if "\0" in text:
        raise InputError(path, "is no text file", "give one feature path a line")
    entries: dict[str, Entry] = {}
    columns = set()
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{Path(path).name} line {number}"
        match = re.fullmatch(r"(.*\S)[\s,]+(0|1|normal|abnormal)(?::([\w-]+))?", line.strip())
        feature_path, label = (match[1].rstrip(","), LABELS[match[2]]) if match else (line.strip(), None)
        columns.add(label is not None)
        if len(columns) > 1:
            raise InputError(place, "some lines have a column of labels, some have none", "label all or none")
        name = video_name(feature_path)
        if not name:
            raise InputError(place, f"{line.strip()[:80]!r} ends in no file name", "give one feature path a line")
        if name in entries:
            raise InputError(place, f"'{name}' is there already, from {entries[name].place}", "list it once")
        kind = None if HASH.fullmatch(name) else KIND_OF_NAME[dataset](name)
        if kind is None and label is None:
            raise InputError(
                place,
                f"'{name}' is neither normal nor abnormal by the names of {dataset}",
                "choose --datasetname, or give a second column with 0 or 1",
            )
        is_abnormal, classes = kind or (False, ())
        if match is not None and label is not None:
            named = tuple(match[3].split("-")) if match[3] else classes
            is_abnormal, classes = label, named if label else ()
        entries[name] = Entry(name, is_abnormal, classes, place)
    if not entries:
        raise InputError(path, "holds no video", "give one feature path a line")
    return list(entries.values())


def video_name(feature_path: str) -> str:
    """Last component without the extension; names may themselves hold dots."""
    last = re.split(r"[/\\]", feature_path)[-1]
    return re.sub(r"\.(npy|mp4|avi)$", "", last)


def require_both_kinds(entries: Sequence[Entry], source: str | Path) -> None:
    """Refuse a training list on which no training is possible."""
    for is_abnormal, kind in ((True, "abnormal"), (False, "normal")):
        if not any(entry.is_abnormal == is_abnormal for entry in entries):
            raise InputError(source, f"holds no {kind} video among {len(entries)}", "training needs both kinds")
