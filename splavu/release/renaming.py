"""Label and annotation files of raw names, rewritten for features that were released under secret keys.

Four formats, by their content: a CSV with a column `filename`; JSON of labels or of THUMOS14's kind; lists of a video a
line, as those of UCF101, UCF-Crime, XD-Violence and ShanghaiTech; a pickle of VISPR. And the ground truth of a list's
frames, one array in the order of the list.

Note: rows come in the order of the released keys. In the order of a public file they would name every key again; who
compares raw with renamed files at home keeps the order (`keep_order`), so that trainings draw the same.

Note: a file is renamed as a whole or refused. What isn't known to be free of names is dropped or refused: folders of
paths, further fields of a video such as its URL, cells that are the names of videos.
"""

from __future__ import annotations

import csv
import functools
import io
import json
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from splavu.data.csv_table import lines_of, read_rows, read_text
from splavu.data.key_map import KEYS_ATTRIBUTE, KeyMap
from splavu.data.keys import file_key
from splavu.data.label_table import LABELS_FILE, read_label_table
from splavu.data.labels import read_attribute_pickle, read_json
from splavu.data.name_tables import NAME_RULES
from splavu.errors import UserError
from splavu.stores import FeatureFolder

VIDEO_FIELDS = ("subset", "duration", "fps", "duration_second", "duration_frame", "frame", "resolution")
ANNOTATION_FIELDS = ("segment", "segment(frames)", "label", "label_id")
"""What is kept of a video, and of each of its annotations, in a file of THUMOS14's kind."""


NUMBER = re.compile(r"[-+]?\d+(\.\d+)?")
"""A label or a time, though a video may be called so too."""


@dataclass(frozen=True)
class Renamed:
    """A file as it is to be written."""

    content: bytes
    num_renamed: int
    num_dropped: int
    """Names without a released key."""


@dataclass(frozen=True)
class Renaming:
    """How files are renamed.

    Args:
        keys: The owner's maps, as one.
        keep_order: Keep the order of the file; None puts videos in the order of their released keys.
        drop: Leave out videos without a released key, which are refused otherwise.
    """

    keys: KeyMap
    keep_order: bool = False
    drop: bool = False

    def file(self, path: str | Path) -> Renamed:
        """A label or annotation file.

        Raises:
            UserError: It is of no known format, is damaged, names a video without a released key, or would give a raw
                name away.
        """
        path = Path(path)
        if path.is_dir() or path.suffix in (".npy", ".h5", ".hdf5", ".npz"):
            remedy = "features are renamed by anonymize --keys secret, ground truth with --list and --features"
            raise UserError(path, "is no label file", remedy)
        if path.suffix in (".pkl", ".pickle"):
            return self._pickle(path)
        if path.suffix == ".json":
            return self._json(path)
        header = read_text(path, opaque=True).partition("\n")[0]
        if "filename" in (cell.strip().strip('"') for cell in header.split(",")):
            return self._table(path)
        return self._list(path)

    def names(self, rule: str) -> Renamed:
        """The table of what the raw names say, of a set that is labelled by its names (`name_tables.NAME_RULES`)."""
        return _csv(NAME_RULES[rule].table(self._ordered(sorted(self.keys.videos), self.keys.videos)))

    def truth(self, path: str | Path, *, test_list: str | Path, features: str | Path, frames: int) -> Renamed:
        """The labels of the frames of a list's videos, one array (`gt-ucf.npy`), in the order of the renamed list.

        Args:
            path: The array.
            test_list: The list with the raw names, whose order it has.
            features: The folder of the videos' features, raw or released: they say how long each video is.
            frames: Frames that a feature stands for.

        Raises:
            UserError: The array isn't as long as the videos, or `drop` would leave some of them out.
        """
        try:
            labels = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise UserError(path, f"is no NumPy array ({error})", "give the array of all videos' frames") from error
        lines = self._lines(Path(test_list))
        released_of = self._released([line.name for line in lines], test_list)
        store = FeatureFolder(features)
        is_released = KEYS_ATTRIBUTE in store.attributes
        stored = {key.removesuffix("__0"): key for key in store} | {key: key for key in store}
        raw_of = {released: raw for raw, released in self.keys.names.items()}
        lengths = []
        for line in lines:
            if line.name not in released_of:
                raise UserError(test_list, f"'{line.name}' has no released key", "the ground truth holds its frames")
            released = released_of[line.name]
            name = released if is_released else raw_of[released]
            if name not in stored:
                raise UserError(features, f"has no '{name}.npy', of '{line.name}' in {test_list}", "extract it")
            lengths.append(frames * store.num_rows(stored[name]))
        if labels.ndim != 1 or len(labels) != sum(lengths):
            problem = f"has shape {labels.shape}, the features of {len(lines)} videos stand for {sum(lengths)} frames"
            raise UserError(path, problem, "is it of this list? then set --frames-per-snippet")
        parts = dict(zip((line.name for line in lines), np.split(labels, np.cumsum(lengths)[:-1]), strict=True))
        ordered = self._ordered(parts, released_of)
        content = io.BytesIO()
        np.save(content, np.concatenate([parts[name] for name in ordered]))
        return Renamed(content.getvalue(), len(parts), 0)

    def _released(self, names: Iterable[str], source: object) -> dict[str, str]:
        """Name -> released key, in the order of the file to be written.

        Raises:
            UserError: A name has none, and isn't to be dropped; or none has one; or one is blank.
        """
        names = list(names)
        if any(not name.strip() for name in names):
            raise UserError(source, "names a video with a blank", "fill it in, or take the line out")
        found = self.keys.renamed(names, source=source)
        absent = [name for name in names if name not in found]
        if absent and (not self.drop or not found):
            problem = f"'{absent[0]}' has no released key ({len(absent)} of {len(names)} names have none)"
            remedy = f"give the maps of all its videos with --keys{', or --drop such names' * bool(found)}"
            raise UserError(source, problem, remedy)
        return self._ordered((name for name in names if name in found), found)

    def _ordered(self, names: Iterable[str], released_of: Mapping[str, str]) -> dict[str, str]:
        """Name -> released key, in the order of the names or of the keys."""
        pairs = [(name, released_of[name]) for name in names]
        return dict(pairs if self.keep_order else sorted(pairs, key=lambda pair: pair[1]))

    def _refuse_names(self, texts: Iterable[object], source: object, where: str) -> None:
        for text in texts:
            if (
                not NUMBER.fullmatch(str(text).strip())
                and file_key(str(text).strip().replace("\\", "/")) in self._stems
            ):
                raise UserError(source, f"{where} holds names of videos too, such as '{text}'", "take it out")

    @functools.cached_property
    def _stems(self) -> set[str]:
        """The videos' names without folder and extension."""
        return {file_key(raw) for raw in self.keys.names}

    def _table(self, path: Path) -> Renamed:
        rows = {row["filename"]: dict(row) for row in read_rows(path)}
        columns = next(iter(rows.values())).keys() & {"label", "split", "subject"}
        if path.name == LABELS_FILE and columns == {"label"}:
            split_of = read_label_table(path).split_of  # dealt by the raw names, which the renamed ones would not do
            rows = {name: {**row, "split": split_of[file_key(name)]} for name, row in rows.items()}
        released_of = self._released(rows, path)
        header = list(next(iter(rows.values())))
        for column in header:
            if column != "filename":
                self._refuse_names((row[column] for row in rows.values()), path, f"column '{column}'")
        cells = [
            tuple(released if column == "filename" else rows[name][column] for column in header)
            for name, released in released_of.items()
        ]
        renamed = _csv([tuple(header), *cells])
        return Renamed(renamed.content, len(cells), len(rows) - len(cells))

    def _json(self, path: Path) -> Renamed:
        content = read_json(path)
        database = content.get("database")
        if isinstance(database, dict):
            released_of = self._released(database, path)
            videos = {released: self._video(database[name], name, path) for name, released in released_of.items()}
            return self._json_of({"database": videos}, len(database), len(videos))
        if not content or not all(type(value) in (int, float, str) for value in content.values()):
            raise UserError(path, "is neither {video: label} nor of THUMOS14's kind ('database')", "rename it by hand")
        released_of = self._released(content, path)
        self._refuse_names((value for value in content.values() if isinstance(value, str)), path, "a label")
        labels = {released: content[name] for name, released in released_of.items()}
        return self._json_of(labels, len(content), len(labels))

    def _json_of(self, content: dict[str, Any], num_names: int, num_renamed: int) -> Renamed:
        return Renamed((json.dumps(content, indent=1) + "\n").encode(), num_renamed, num_names - num_renamed)

    def _video(self, video: object, name: str, path: Path) -> dict[str, Any]:
        """What is kept of a video's annotations."""
        if not isinstance(video, dict) or not isinstance(video.get("annotations"), list):
            raise UserError(path, f"'{name}' has no list 'annotations'", "use the published annotation file")
        kept: dict[str, Any] = {field: video[field] for field in VIDEO_FIELDS if field in video}
        annotations = [
            {field: one[field] for field in ANNOTATION_FIELDS if field in one}
            for one in video["annotations"]
            if isinstance(one, dict)
        ]
        if len(annotations) < len(video["annotations"]):
            raise UserError(path, f"'{name}' has an annotation that is no object", "use the published annotation file")
        self._refuse_names((kept.get("subset", ""), *(one.get("label", "") for one in annotations)), path, f"'{name}'")
        return {**kept, "annotations": annotations}

    def _list(self, path: Path) -> Renamed:
        lines = {line.name: line for line in self._lines(path)}
        released_of = self._released(lines, path)
        text = "".join(lines[name].renamed(released) for name, released in released_of.items())
        return Renamed(text.encode(errors="surrogateescape"), len(released_of), len(lines) - len(released_of))

    def _lines(self, path: Path) -> list[Line]:
        """The lines of a list that aren't empty."""
        found: dict[str, Line] = {}
        for number, text in enumerate(lines_of(read_text(path, opaque=True)), start=1):
            if not text.strip():
                continue
            line = _line(text.strip(), self._stems)
            if line.name in found:
                raise UserError(path, f"'{line.name}' is in line {number} again", "list it once")
            self._refuse_names(re.split(r"[\s,]+", line.rest), path, f"line {number}")
            found[line.name] = line
        if not found:
            raise UserError(path, "names no video", "give a CSV with a column filename, JSON, or a video a line")
        return list(found.values())

    def _pickle(self, path: Path) -> Renamed:
        try:
            vectors = read_attribute_pickle(path)
        except UserError as error:
            raise UserError(path, f"is no pickle of VISPR's labels ({error.problem})", error.remedy) from error
        released_of = self._released(vectors, path)
        labels = {released: vectors[name].tolist() for name, released in released_of.items()}
        return Renamed(pickle.dumps(labels, protocol=4), len(labels), len(vectors) - len(labels))


@dataclass(frozen=True)
class Line:
    """A line of a list."""

    name: str
    """Of the video: a path with `/`, with or without an extension."""
    rest: str
    """What follows it, with what separates them."""

    def renamed(self, released: str) -> str:
        """The line with the released key; of folders only UCF101's is kept, which is the class."""
        folder, stem = PurePosixPath(self.name).parent.name, file_key(self.name)
        is_class = stem.lower().startswith(f"v_{folder.lower()}_")
        return f"{f'{folder}/' * is_class}{released}{self.rest}\n"


def _line(text: str, stems: set[str]) -> Line:
    """The longest beginning of a line that is the name of a video; up to the first space, if none is."""
    places = [match.start() for match in re.finditer(r"[\s,]+|$", text)]
    for place in reversed(places):
        name = text[:place].replace("\\", "/")
        if file_key(name) in stems:
            return Line(name, text[place:])
    return Line(text[: places[0]].replace("\\", "/"), text[places[0] :])


def _csv(rows: Sequence[tuple[str, ...]]) -> Renamed:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows(rows)
    return Renamed(text.getvalue().encode(errors="surrogateescape"), len(rows) - 1, 0)
