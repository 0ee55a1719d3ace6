"""What an audit works on: released features, the raw ones they were made from, whose they are and what is private.

Note: the split by subject matters most. Attackers are trained on some subjects, tuned and chosen on others, and tested
once on the test subjects; a subject in two groups would be recognised, and the attribute read off the recognition. A
column `split` in the table of labels is kept: without it, an anonymizer trained on the test subjects would be evaluated
on its own training data.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from splavu.attacks.crossfit import deal, parts
from splavu.attacks.rows import AttackData, Rows, hold_out
from splavu.audit.identity.clips_apart import CAVEAT, one_video_each
from splavu.audit.questions import Question, Questions, personal, questions_of
from splavu.data.key_map import KeyMap
from splavu.data.keys import match_keys
from splavu.data.private_labels import PrivateLabels, PrivateTable, private_table
from splavu.errors import UserError
from splavu.runtime import limits
from splavu.runtime.files import file_hash
from splavu.stores import open_features

logger = logging.getLogger(__name__)

MEMORY_FACTOR = 6
"""Memory that an audit takes, by that of the features: measured, about 5."""
FOLDS = 5
"""Parts that subjects are dealt into without a column `split`: three to train on, one to tune on, one to test on."""
VALIDATION_SHARE = 0.2
"""Of the training subjects, where the table has no split `val`."""
NAMES_IGNORED = "attackers did not read names: what follows holds for a release under secret keys alone"


@dataclass(frozen=True)
class InputFile:
    """One file that went in."""

    role: str
    """released, raw, labels, groups or aam."""
    name: str
    sha256: str
    """Of the bytes; of a folder, of its files' names and bytes."""
    attributes: Mapping[str, str | int | float]
    """Of a store: encoder, weights, preprocessing, anonymizer."""


@dataclass(frozen=True)
class ReleasedKey:
    """What a store shows of a key beside its features."""

    name: str
    """As it is released."""
    num_clips: int
    place: float
    """In its store: 0 for the first key, 1 for the last one."""
    attributes: tuple[str, ...] = ()
    """'name=value' of its store, and the store's file name."""


@dataclass(frozen=True)
class AuditInputs:
    """All that is attacked, in three groups of subjects; `raw` has the same rows as `released`, or is None."""

    attributes: tuple[str, ...]
    """[A] of every kind that can be judged; empty where the table says who is who and no more."""
    released: AttackData
    """Labels are answers to `questions`."""
    raw: AttackData | None
    files: tuple[InputFile, ...]
    warnings: tuple[str, ...]
    columns: tuple[Mapping[str, Any], ...] = ()
    """What each column of the table was read as (`PrivateTable.records`)."""
    asked: tuple[Question, ...] = ()
    """Empty: every attribute is binary."""
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Key -> [A]: 0 and 1, the place of the class, or the number. Empty: every attribute is binary."""
    keys: Mapping[str, ReleasedKey] = field(default_factory=dict)
    """Video of `released` -> its key as the attacker sees it; empty where features came without a store."""

    @property
    def questions(self) -> Questions:
        """[Q] what attackers are asked, a column of the labels each."""
        return Questions(self.asked) if self.asked else Questions.binary(self.attributes)

    @property
    def personal(self) -> np.ndarray:  # [Q] of bool
        """The questions that a set of all a person's videos may be asked (`questions.personal`)."""
        every = list(self.released.splits.values())
        labels, clusters, videos = (
            np.concatenate([getattr(rows, name) for rows in every]) for name in ("labels", "clusters", "videos")
        )
        values = np.stack([self.values[video] for video in videos.tolist()]) if self.values else labels
        return personal(self.questions, dict(zip(self.attributes, values.T, strict=True)), clusters)

    @property
    def people(self) -> dict[str, str]:
        """Video -> person."""
        every = self.released.splits.values()
        return {str(v): str(p) for rows in every for v, p in zip(rows.videos, rows.clusters, strict=True)}


def read_inputs(
    released: Sequence[str | Path],
    table: PrivateTable,
    *,
    raw: Sequence[str | Path] = (),
    others: Mapping[str, str | Path] | None = None,
    max_clips: int = 64,
    seed: int = 0,
    key_map: KeyMap | None = None,
    read_names: bool = True,
) -> AuditInputs:
    """Features of the stores, joined with the table and split by subjects.

    Args:
        released: Stores, folders, or patterns with * that name several.
        table: Of `read_private_table`; it says who is who.
        raw: The stores that `released` was made from: the same keys with as many rows.
        others: Role -> further file that goes into the evidence.
        max_clips: Of a longer video, as many evenly spaced clips are taken, and a warning says so.
        seed: Of the dealing of subjects, where the table has no split.
        key_map: The owner's, of stores released under secret keys: the table and `raw` have the raw keys.
        read_names: False leaves out what keys, lengths and file attributes say; a warning says so.

    A table without a column of attributes is audited for identity alone.

    Raises:
        UserError: No subjects in the table, no store, no key with a label, a key that two rows could mean, keys or rows
            that raw and released don't share, values that are not finite, a group without subjects, attributes none of
            which can be judged.
    """
    table.require_subjects("add it, or give --groups: a split is by subject")
    labels = table.path
    paths = {"released": expanded(released, "--released"), "raw": expanded(raw, "--raw") if raw else []}
    features, files, shown, num_bytes = {}, [], {}, 0
    for role, stores in paths.items():
        features[role] = {}
        for path in stores:
            store = open_features(path)
            files.append(InputFile(role, path.name, file_hash(path), dict(store.attributes)))
            num_bytes += store.num_bytes()
            limits.require(MEMORY_FACTOR * num_bytes, path, "auditing its features")
            of_store = (path.name, *(f"{name}={value}" for name, value in store.attributes.items()))
            for place, stored in enumerate(store):
                key = key_map.raw(stored) if key_map is not None and role == "released" else stored
                if key in features[role]:
                    raise UserError(path, f"duplicate key '{key}', also in another store of --{role}", "give it once")
                features[role][key] = _rows_of(store[stored])
                if not np.isfinite(features[role][key]).all():  # attackers that fail on NaN would pass for privacy
                    raise UserError(path, f"'{key}' holds values that are not finite", "release it again")
                if role == "released":
                    num_clips = len(features[role][key])
                    shown[key] = ReleasedKey(stored, num_clips, place / max(1, len(store) - 1), of_store)
    files += [
        InputFile(role, Path(p).name, file_hash(p), {}) for role, p in {"labels": labels, **(others or {})}.items()
    ]
    return _joined(features, files, shown, table, max_clips=max_clips, seed=seed, read_names=read_names)


def array_inputs(
    raw: ArrayLike | None,
    released: ArrayLike,
    labels: Any,
    subjects: Any,
    *,
    videos: Any = None,
    splits: Any = None,
    max_clips: int = 64,
    seed: int = 0,
) -> AuditInputs:  # [N, D], [N, E], columns of [N], [N]
    """The same of arrays, a row a clip; names and lengths are not attacked.

    Args:
        raw: Features; None without.
        released: What was made of them, row by row.
        labels: Private attributes: column -> [N] (a dictionary, a DataFrame), or [N] or [N, A]. The clips of a video
            have the same.
        subjects: Who is in each row.
        videos: The video of each row; None takes each row for a video of its own.
        splits: 'train', 'val' or 'test' of each row; None deals subjects.
        max_clips: As of `read_inputs`.
        seed: As of `read_inputs`.

    Raises:
        UserError: An array has other rows; a value that is not finite; labels that change within a video; and what
            `read_inputs` finds in tables.
    """
    arrays = {"released": released} | ({} if raw is None else {"raw": raw})
    features: dict[str, dict[str, np.ndarray]] = {}
    count = len(np.asarray(released))
    names = _cells("videos", range(count) if videos is None else videos, count)
    if videos is None:
        names = [f"row {name}" for name in names]
    rows_of: dict[str, list[int]] = {}
    for row, name in enumerate(names):
        rows_of.setdefault(name, []).append(row)
    for role, given in arrays.items():
        array = np.asarray(given, dtype=np.float32)
        if array.ndim != 2 or len(array) != count:
            raise UserError(role, f"has shape {array.shape}, expected [{count}, width]", "give a row a clip")
        if not np.isfinite(array).all():
            raise UserError(role, "holds values that are not finite", "release it again")
        features[role] = {name: array[rows] for name, rows in rows_of.items()}
    columns = {name: _cells(name, column, count) for name, column in _columns(labels).items()}
    columns["subject"] = _cells("subjects", subjects, count)
    if splits is not None:
        columns["split"] = _cells("splits", splits, count)
    table = []
    for name, rows in rows_of.items():
        cells = {"filename": name}
        for column, values in columns.items():
            if len(found := {values[row] for row in rows}) > 1:
                culprit = {"subject": "subjects", "split": "splits"}.get(column, "labels")
                problem = f"video '{name}' has {column} {' and '.join(sorted(found)[:2])}"
                raise UserError(culprit, problem, "give the clips of a video the same")
            cells[column] = values[rows[0]]
        table.append(cells)
    return _joined(features, [], {}, private_table(table, "labels"), max_clips=max_clips, seed=seed, read_names=True)


def _columns(labels: Any) -> dict[str, Any]:
    """Attribute -> [N]; those of an array go by their place."""
    if hasattr(labels, "items"):
        return {str(name): column for name, column in labels.items()}
    array = np.asarray(labels)
    if array.ndim not in (1, 2):
        raise UserError("labels", f"has shape {array.shape}, expected [N] or [N, attributes]", "give a column each")
    array = array.reshape(len(array), -1)
    return {f"attribute {place}": column for place, column in enumerate(array.T)}


def _cells(name: str, values: Any, count: int) -> list[str]:
    """The values as a table would hold them, '' for unknown."""
    column = np.asarray(values)
    if column.shape != (count,):
        raise UserError(name, f"has shape {column.shape}, expected [{count}]: a value for each row", "give one a row")
    return [_cell(value) for value in column.tolist()]


def _cell(value: object) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool) or (isinstance(value, float) and value.is_integer()):
        return str(int(value))
    return str(value)


def _joined(
    features: dict[str, dict[str, np.ndarray]],
    files: list[InputFile],
    shown: Mapping[str, ReleasedKey],
    table: PrivateTable,
    *,
    max_clips: int,
    seed: int,
    read_names: bool,
) -> AuditInputs:
    """Features by role and key, joined with the table and split by subjects."""
    labels, raw = table.path, bool(features.get("raw"))
    row_of = table.rows_of(features["released"])
    keys = list(row_of)
    if not keys:
        example = next(iter(features["released"]), "nothing")
        remedy = "check the names; if keys are hashed, give the owner's map with --keys"
        raise UserError(labels, f"has a label for none of the released keys, such as '{example}'", remedy)
    warnings: list[str] = [] if read_names else [NAMES_IGNORED]
    examples: dict[str, str] = {}  # of warnings; in the log only, for evidence may be published
    if unlabelled := [key for key in features["released"] if key not in row_of]:
        warnings.append(
            f"{len(unlabelled)} of {len(features['released'])} released keys have no label and were left out"
        )
        examples[warnings[-1]] = unlabelled[0]
    released_rows = set(row_of.values())
    if absent := [name for row, name in enumerate(table.names) if row not in released_rows]:
        warnings.append(
            f"{len(absent)} of {len(table.names)} labelled videos are in no released store and were left out"
        )
        examples[warnings[-1]] = absent[0]
    if table.unasked:
        names = ", ".join(f"'{name}'" for name in table.unasked)
        warnings.append(f"{names} of {Path(labels).name} was not attacked: name it with --attributes if it is private")
    if raw:
        name_of = match_keys(features["raw"], features["released"], source="--raw")
        features["raw"] = {key: features["raw"][name] for key, name in name_of.items()}
        for key in keys:
            if key not in features["raw"]:
                raise UserError("--raw", f"has no '{key}', which is released", "give all stores of raw features")
            if len(features["raw"][key]) != len(features["released"][key]):
                found = f"{len(features['raw'][key])} raw rows and {len(features['released'][key])} released ones"
                raise UserError("--raw", f"'{key}' has {found}", "give the store that was released")

    long = [key for key in keys if len(features["released"][key]) > max_clips]
    for key in long:
        for found in features.values():
            if key in found:
                found[key] = found[key][np.arange(max_clips) * len(found[key]) // max_clips]
    if long:
        warnings.append(f"{len(long)} videos have more than {max_clips} clips; as many evenly spaced ones were taken")

    every = questions_of(table.columns, *_of(keys, row_of, table))
    groups = _groups(keys, _labels(table, row_of, every), seed, labels)
    questions, notes = _judged(table, row_of, groups)
    warnings += notes
    known = _labels(table, row_of, questions)
    data = {role: _attack_data(features[role], groups, known) for role in ("released", "raw") if features.get(role)}
    if one_video_each(data["released"]):
        warnings.append(CAVEAT)
    for warning in warnings:
        logger.warning("%s", f"{warning}, such as '{examples[warning]}'" if warning in examples else warning)
    values = [column.values for name in questions.attributes for column in table.columns if column.name == name]
    return AuditInputs(
        questions.attributes,
        data["released"],
        data.get("raw"),
        tuple(files),
        tuple(warnings),
        tuple(table.records),
        questions.asked,
        {key: np.array([column[row] for column in values]) for key, row in row_of.items()},
        {key: shown[key] for key in keys} if read_names and shown else {},
    )


def planned_inputs(table: PrivateTable, num_clips: Mapping[str, int], *, seed: int = 0) -> AuditInputs:
    """What `read_inputs` will give of a release, without features: who is tested on and what can be asked, from the
    labels alone. Its rows are empty.

    Args:
        table: Of `read_private_table`.
        num_clips: Key -> clips, of the videos to be released.
        seed: As for `read_inputs`.

    Raises:
        UserError: What `read_inputs` finds in the table.
    """
    table.require_subjects("add it, or give --groups: a split is by subject")
    row_of = table.rows_of(num_clips)
    if not row_of:
        raise UserError(table.path, "has a label for none of the videos", "check the names")
    every = questions_of(table.columns, *_of(list(row_of), row_of, table))
    groups = _groups(list(row_of), _labels(table, row_of, every), seed, table.path)
    questions, notes = _judged(table, row_of, groups)
    empty = {key: np.zeros((num_clips[key], 1), np.float32) for key in row_of}
    data = _attack_data(empty, groups, _labels(table, row_of, questions))
    return AuditInputs(questions.attributes, data, None, (), tuple(notes), asked=questions.asked)


def expanded(names: Iterable[str | Path], flag: str) -> list[Path]:
    paths: list[Path] = []
    for name in names:
        found = [Path(name)] if Path(name).exists() else sorted(Path(name).parent.glob(Path(name).name))
        if not found:
            raise UserError(flag, f"there is no store '{name}'", "check the path or the pattern")
        paths += [path for path in found if path not in paths]
    return paths


def _rows_of(features: np.ndarray) -> np.ndarray:  # [D], [K, D] or [T, N, D] -> [K, D]
    return np.ascontiguousarray(features.reshape(-1, features.shape[-1]), dtype=np.float32)


def _groups(keys: Sequence[str], known: PrivateLabels, seed: int, culprit: str | Path) -> dict[str, list[str]]:
    """Keys of the three groups of subjects."""
    one_each = Rows(
        np.zeros((len(keys), 1), np.float32),
        np.stack([known.values[key] for key in keys]),
        np.array([known.subjects[key] for key in keys]),
        np.array(keys),
    )
    if known.splits:
        split = np.array([known.splits[key] for key in keys])
        found = {name: one_each.take(np.flatnonzero(split == name)) for name in ("train", "val", "test")}
        if len(found["train"]) and not len(found["val"]):
            found["train"], found["val"] = hold_out(found["train"], share=VALIDATION_SHARE, seed=seed)
    else:
        if (num_subjects := len(np.unique(one_each.clusters))) < FOLDS:
            problem = f"has {num_subjects} subjects whose videos are released, and {2 * FOLDS} are needed"
            raise UserError(culprit, problem, "release more subjects, or say who is train, val and test (column split)")
        dealt = parts(one_each, deal(one_each, num_folds=FOLDS, seed=seed), 0)
        found = {"train": dealt.train, "val": dealt.validation, "test": dealt.test}
    for name, rows in found.items():
        if len(np.unique(rows.clusters)) < 2:
            raise UserError(
                culprit,
                f"leaves fewer than two subjects for {name}",
                "release more subjects" + (" of that split, or leave out the column split" if known.splits else ""),
            )
    return {name: rows.videos.tolist() for name, rows in found.items()}


def _of(keys: Iterable[str], row_of: Mapping[str, int], table: PrivateTable) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the table, and their subjects."""
    rows = np.array([row_of[key] for key in keys], dtype=np.intp)
    return rows, np.array(table.subjects)[rows]


def _labels(table: PrivateTable, row_of: Mapping[str, int], questions: Questions) -> PrivateLabels:
    """Every key's answers, subject and split."""
    rows = np.array(list(row_of.values()), dtype=np.intp)
    answers = questions.answers({column.name: column.values[rows] for column in table.columns}, len(rows))
    return PrivateLabels(
        questions.names,
        dict(zip(row_of, answers, strict=True)),
        {key: str(subject) for key, subject in zip(row_of, np.array(table.subjects)[rows], strict=True)},
        {} if table.splits is None else {key: table.splits[row] for key, row in row_of.items()},
    )


def _judged(
    table: PrivateTable, row_of: Mapping[str, int], groups: Mapping[str, list[str]]
) -> tuple[Questions, list[str]]:
    """What can be asked, by the classes and quartiles of the training subjects, and a warning of what can't.

    Binary attributes of one class are asked all the same: they may be judged on raw features, and are named otherwise.

    Raises:
        UserError: There are attributes, and none can be judged.
    """
    questions = questions_of(table.columns, *_of(groups["train"], row_of, table))
    answer_of = _labels(table, row_of, questions).values
    both = {}
    for name, keys in groups.items():
        answers = np.stack([answer_of[key] for key in keys])
        both[name] = (answers == 0).any(axis=0) & (answers == 1).any(axis=0)
    judged, warnings = np.logical_and.reduce(list(both.values())), []
    for column in table.columns:
        of = questions.of(column.name)
        missing = [name for name, known in both.items() if not known[of].any()]
        if not judged[of].any():
            problem = f"the subjects of {' and '.join(missing or groups)} are of one class"
            warnings.append(f"'{column.name}' is not judged: {problem}")
        elif column.kind == "class" and (left_out := len(column.classes) - int(judged[of].sum())):
            warnings.append(f"'{column.name}': {left_out} of {len(column.classes)} classes have too few subjects")
    if table.columns and not judged.any():
        raise UserError(
            table.path, "has no attribute of both classes among train, val and test subjects", "add subjects"
        )
    kept = [q for q, question in enumerate(questions.asked) if judged[q] or question.kind == "binary"]
    return questions.take(np.array(kept, dtype=np.intp)), warnings


def _attack_data(
    features: Mapping[str, np.ndarray], groups: Mapping[str, list[str]], known: PrivateLabels
) -> AttackData:
    def rows(keys: list[str]) -> Rows:
        owners = [key for key in keys for _ in features[key]]
        return Rows(
            np.concatenate([features[key] for key in keys]),
            np.stack([known.values[key] for key in owners]),
            np.array([known.subjects[key] for key in owners]),
            np.array(owners),
        )

    return AttackData(rows(groups["train"]), rows(groups["val"]), rows(groups["test"]))
