"""What there is to protect: clips of each video, who is in it, what is done, and on which side of the split it is."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from splavu.data.csv_table import read_rows
from splavu.data.keys import match_keys
from splavu.data.private_labels import PrivateTable
from splavu.data.subjects import read_subjects
from splavu.errors import UserError

logger = logging.getLogger(__name__)

MOST_OPENED = 300
"""Videos that are opened to count their clips; of more, so many are opened and the others taken for as long."""


@dataclass(frozen=True)
class Inventory:
    """What a folder or a store holds, with what the tables say of it."""

    num_clips: Mapping[str, int]
    """Key -> clips."""
    subjects: Mapping[str, str]
    """Key -> who is in it, for all keys or, where no table says, for none."""
    actions: Mapping[str, str] = field(default_factory=dict)
    """Key -> what is done, where a table says."""
    splits: Mapping[str, str] = field(default_factory=dict)
    """Key -> 'train', 'val' or 'test', where a table says."""

    @property
    def unit(self) -> str:
        """Whom a floor counts: 'subject', or 'video' where nobody is known."""
        return "subject" if self.subjects else "video"

    def owner(self, key: str) -> str:
        """The subject; where nobody is known, the video itself."""
        return self.subjects.get(key, key)

    def owners(self, keys: Iterable[str] | None = None) -> set[str]:
        """Of these videos, or of all."""
        return {self.owner(key) for key in (self.num_clips if keys is None else keys)}

    def clips_of_owner(self, keys: Iterable[str]) -> np.ndarray:  # -> [owners]
        """How many clips each owner of these videos has."""
        keys = list(keys)
        _, number = np.unique([self.owner(key) for key in keys], return_inverse=True)
        return np.bincount(number, [self.num_clips[key] for key in keys]).astype(np.int64)

    def __str__(self) -> str:
        """The counts, in a line."""
        counts = f"{len(self.num_clips)} videos, {sum(self.num_clips.values())} clips"
        who = f"{len(self.owners())} subjects" if self.subjects else "subjects unknown: each video counts as one"
        what = f", {len(set(self.actions.values()))} actions" if self.actions else ""
        return f"{counts}, {who}{what}"


def clips_of_videos(files: Mapping[str, Path], num_frames: int) -> tuple[dict[str, int], dict[str, str]]:
    """Key -> about how many clips a video has, by what its container says; key -> why it can't be opened."""
    from splavu.extraction.videos import open_video  # takes seconds to import

    taken = np.linspace(0, len(files) - 1, min(len(files), MOST_OPENED)).round().astype(int)
    keys = list(files)
    counts: dict[str, int] = {}
    failures: dict[str, str] = {}
    for place in taken:
        key = keys[place]
        try:
            with open_video(files[key]) as video:
                counts[key] = max(1, video.expected_frames // num_frames)
        except UserError as error:
            failures[key] = str(error)
    if not counts:
        key, reason = next(iter(failures.items()))
        raise UserError(
            files[key].parent, f"none of its videos can be read, such as '{key}' ({reason})", "replace them"
        )
    typical = max(1, round(float(np.median(list(counts.values())))))
    return {key: counts.get(key, typical) for key in keys if key not in failures}, failures


def read_inventory(
    num_clips: Mapping[str, int],
    *,
    subjects: Path | None = None,
    private: PrivateTable | None = None,
    actions: Path | None = None,
) -> Inventory:
    """The videos with what the tables say of them. Each of the tables may say who is in a video, and its split.

    Args:
        num_clips: Key -> clips.
        subjects: CSV `filename,subject,split`.
        private: Table of private labels.
        actions: CSV `filename,label`, optionally with `subject` and `split`.

    Raises:
        UserError: A table is damaged or names none of the videos; two tables disagree; subjects are known of some
            videos only.
    """
    keys = list(num_clips)
    who: list[tuple[Path, Mapping[str, str]]] = []
    sides: list[tuple[Path, Mapping[str, str]]] = []
    done: dict[str, str] = {}
    if subjects is not None:
        found = read_subjects(subjects, keys)
        _require_some(found.subjects or found.splits, subjects, keys)
        who.append((subjects, found.subjects))
        sides.append((subjects, found.splits))
    if private is not None:
        labels = private.of(keys)
        _require_some(labels.values, private.path, keys)
        who.append((private.path, labels.subjects))
        sides.append((private.path, labels.splits))
    if actions is not None:
        rows = {row["filename"]: row for row in read_rows(actions, ("filename", "label"))}
        name_of = match_keys(rows, keys, source=actions)
        done = {key: cell for key, name in name_of.items() if (cell := rows[name]["label"].strip())}
        _require_some(done, actions, keys)
        header = next(iter(rows.values()))
        if "subject" in header or "split" in header:
            found = read_subjects(actions, keys)
            who.append((actions, found.subjects))
            sides.append((actions, found.splits))
    known, split_of = _agreed(who, "subject"), _agreed(sides, "split")
    if known and (strangers := [key for key in keys if key not in known]):
        problem = f"{len(strangers)} of {len(keys)} videos have no subject, such as '{strangers[0]}'"
        source = next(path for path, table in who if table)
        raise UserError(source, problem, "add them to the table, or take the videos out")
    return Inventory(num_clips, known, done, split_of)


def _require_some(found: Collection[str], path: Path, keys: Sequence[str]) -> None:
    if not found:
        raise UserError(path, f"has a row for none of the {len(keys)} videos, such as '{keys[0]}'", "check the names")


def _agreed(tables: Sequence[tuple[Path, Mapping[str, str]]], what: str) -> dict[str, str]:
    """The tables as one."""
    merged: dict[str, str] = {}
    for path, table in tables:
        for key, value in table.items():
            if merged.setdefault(key, value) != value:
                problem = f"'{key}' has {what} '{value}', and '{merged[key]}' in another table"
                raise UserError(path, problem, "correct one of the two")
    return merged
