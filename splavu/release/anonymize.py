"""A store anonymized: read and tested, computed, written, all at once and in constant memory.

Note: the released store follows the raw one as it is now: it keeps a hash of the raw files' content. Where that has
changed, whatever its time, the next run writes the released store again as a whole.

Note: with secret keys, keys and rows come in the order of a keyed hash, which reveals nothing; the clips of a video
keep their order. Attributes that extraction doesn't write are left out, since they may name anything.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from splavu._version import __version__
from splavu.anonymizers import Anonymizer
from splavu.anonymizers.loading import weights_hash
from splavu.data.key_map import (
    KEY_DIGITS,
    KEYS_ATTRIBUTE,
    SECRET_ATTRIBUTE,
    KeyMap,
    fingerprint,
    hashed_keys,
    hashed_order,
    keep_secret,
    secret_of,
    write_key_map,
    write_owned,
)
from splavu.errors import UserError
from splavu.release.serving import serve_each, serve_rows
from splavu.runtime import limits
from splavu.runtime.files import PathLike, check_target, file_hash
from splavu.runtime.progress import progress_bar
from splavu.stores import open_features
from splavu.stores.ordered import FeatureWriter
from splavu.stores.ordered_folder import FolderInOrder
from splavu.stores.ordered_hdf5 import StoreInOrder
from splavu.stores.ordered_parquet import TableInOrder
from splavu.stores.parquet import FeatureTable, TablePart
from splavu.stores.provenance import OUR_ATTRIBUTES
from splavu.stores.scanning import Scan

Unit = Literal["alone", "video"]

MEMORY_FACTOR = 4
"""Memory that a release takes, by that of the largest key: measured, about 3."""
MEMORY_OF_ROW = 200
"""Bytes that the order of the rows and the map of a table take for each row."""
_OTHER_WIDTH = "give the anonymizer of the encoder that made these features"


@dataclass(frozen=True)
class SecretKeys:
    """Release under hashed keys (`splavu.data.key_map`), and keep the way back: its files stay with the owner."""

    secret: bytes
    """`key_map.SECRET_BYTES` bytes."""
    file: Path
    """Where the secret is kept; written if it isn't there."""
    beside: Path
    """The maps are written beside this file or folder, under its name and more."""

    @classmethod
    def of(cls, target: str | Path, file: str | Path | None = None) -> SecretKeys:
        """For a release to `target`: its secret is in `file` or, by default, in `target.secret` beside it, and is made
        where there is none.

        Raises:
            UserError: The file is no secret, or lies in the folder that is given away.
        """
        target = Path(target)
        file = target.with_name(f"{target.name}.secret") if file is None else Path(file)
        if file.resolve().is_relative_to(target.resolve()):
            raise UserError(file, f"lies in {target}, which is given away", "keep it elsewhere")
        return cls(secret_of(file), file, target)

    def map(self, of: str = "keys") -> Path:
        """The file of a map: of the keys, the rows, or `keys` of a column."""
        return self.beside.with_name(f"{self.beside.name}.{of}.csv")

    @property
    def attributes(self) -> dict[str, str]:
        """What a released store says of its keys."""
        rule = f"HMAC-SHA256, the first {KEY_DIGITS} hexadecimal digits"
        return {KEYS_ATTRIBUTE: rule, SECRET_ATTRIBUTE: fingerprint(self.secret)}


def anonymize_store(
    source: str | Path,
    target: str | Path,
    anonymizer: Anonymizer,
    *,
    unit: Unit = "alone",
    device: torch.device | str = "cpu",
    inputs: Iterable[PathLike] = (),
    secret_keys: SecretKeys | None = None,
) -> int:
    """Write `target` with every feature of `source` anonymized; returns the number of keys.

    Interrupted, it goes on where it stopped, and gives the same bytes. What is written says which weights made it, in
    its attributes. Takes the memory of the largest key a few times, and some 100 MB.

    Args:
        source: An HDF5 store, or a folder of .npy files, one a video.
        target: The same kind, to be written.
        anonymizer: The trained anonymizer.
        unit: 'alone': each feature as if it came alone; 'video' (folders only): each crop of a video is one sequence.
        device: Where it computes.
        inputs: What else the running command reads; none of it is replaced.
        secret_keys: Release under hashed keys, in their order, and write the map; None releases keys as they are.

    Raises:
        UserError: The anonymizer attends over the batch, so that a feature has no anonymized value of its own, or
            leaves features as they are; the widths differ; the source is damaged, holds values that are not finite, is
            a released store, or changes meanwhile; source and target are one file; clips of a store are to be taken
            for a sequence; `target` is there, made with other attributes.
    """
    source, target = Path(source), Path(target)
    if unit == "video" and not source.is_dir():
        raise UserError("unit", f"'video', but {source} is no folder of long videos", "leave it out: clips are alone")
    refuse_mixing(anonymizer)
    check_target(target, inputs=[source, *inputs], is_folder=source.is_dir())
    store = open_features(source, feature_dim=anonymizer.architecture["feature_dim"])
    if secret_keys is None:
        scan, keys = Scan(store), None
        headers = scan.headers
    else:
        check_target(secret_keys.map(), inputs=[source, *inputs])
        keys = hashed_keys(store.keys(), secret_keys.secret, crops=source.is_dir())
        scan = Scan(store, order=sorted(keys.released_of, key=keys.released_of.__getitem__))
        headers = [(keys.released_of[key], shape) for key, shape in scan.headers]
    largest, key = max((math.prod(shape), key) for key, shape in scan.headers)
    limits.require(MEMORY_FACTOR * 4 * largest, source, f"anonymizing '{key}'")
    refuse_unchanged(anonymizer)
    anonymizer = anonymizer.to(device).eval()
    attributes = provenance(store.attributes, anonymizer, source=source, secret_keys=secret_keys)
    if unit == "video":
        attributes["anonymized"] = "each video as one sequence"
    state = state_of_files(store.files())
    origin = content_of_files(store.files(), secret_keys=secret_keys)
    writer_class: type[FeatureWriter] = FolderInOrder if source.is_dir() else StoreInOrder
    with (
        writer_class(target, headers=headers, attributes=attributes, origin=origin) as writer,
        progress_bar(total=len(headers), initial=writer.position, desc=target.name, unit="key") as progress,
    ):
        if secret_keys is not None and keys is not None:
            keep_secret(secret_keys.file, secret_keys.secret, inputs=[source, *inputs])
            write_key_map(secret_keys.map(), keys, inputs=[source, *inputs])
        raw = scan.features(writer.position)
        if unit == "video":
            served = serve_each(raw, partial(_as_sequence, anonymizer), device=device)
        else:
            served = serve_rows(raw, anonymizer, device=device)
        for features in served:
            writer.write(features)
            progress.update()
        if state_of_files(store.files()) != state:
            raise UserError(source, "was changed while it was read", "run the same command again")
    return len(headers)


def anonymize_table(
    source: str | Path,
    target: str | Path,
    anonymizer: Anonymizer,
    *,
    column: str | None = None,
    keep: Sequence[str] = (),
    device: torch.device | str = "cpu",
    inputs: Iterable[PathLike] = (),
    secret_keys: SecretKeys | None = None,
) -> FeatureTable:
    """Write `target` with the features' column of a Parquet file anonymized, each feature as if it came alone.

    As `anonymize_store`; rows keep their order, but for secret keys. Other columns stay behind unless they are named.

    Args:
        source: A Parquet file.
        target: The one to be written.
        anonymizer: The trained anonymizer.
        column: The features' column; None takes the only one that holds lists of floats.
        keep: Plain columns to carry along; with secret keys each says how, NAME:plain or NAME:hashed.
        device: Where it computes.
        inputs: What else the running command reads; none of it is replaced.
        secret_keys: Permute the rows by a keyed hash, and write the map of the rows and of each hashed column.

    Returns:
        The raw table, which tells its column and those it left behind.

    Raises:
        UserError: As `anonymize_store`; see also `FeatureTable`.
    """
    source, target = Path(source), Path(target)
    refuse_mixing(anonymizer)
    check_target(target, inputs=[source, *inputs])
    hashed: list[str] = []
    if secret_keys is not None:
        keep, hashed = _kept_and_hashed(keep)
    table = FeatureTable(source, column=column, keep=keep)
    width = anonymizer.architecture["feature_dim"]
    refuse_unchanged(anonymizer)
    anonymizer = anonymizer.to(device).eval()
    attributes = provenance(table.attributes, anonymizer, source=source, secret_keys=secret_keys)
    order, maps = None, {}
    if secret_keys is not None:
        limits.require(MEMORY_OF_ROW * table.num_rows, source, f"hashing {table.num_rows} rows")
        order = hashed_order(table.num_rows, secret_keys.secret)
        maps = {name: hashed_keys(table.texts(name), secret_keys.secret) for name in hashed}
    state = state_of_files([source])
    taken = json.dumps([table.column, table.keep, hashed])
    origin = content_of_files([source], taken, secret_keys=secret_keys)
    written = {"attributes": attributes, "origin": origin}
    with (
        TableInOrder(target, source=table, order=order, texts=hashed, **written) as writer,
        progress_bar(total=table.num_parts, initial=writer.position, desc=target.name, unit="part") as progress,
    ):
        if secret_keys is not None and order is not None:
            keep_secret(secret_keys.file, secret_keys.secret, inputs=[source, *inputs])
            for name, keys in maps.items():
                write_key_map(secret_keys.map(f"{_file_name(name)}.keys"), keys, inputs=[source, *inputs])
            rows = "".join(f"{raw},{released}\n" for released, raw in enumerate(order))
            write_owned(secret_keys.map("rows"), f"raw,released\n{rows}".encode(), inputs=[source, *inputs])
        raw: deque[TablePart] = deque()

        def features() -> Iterator[np.ndarray]:
            for part in table.parts(writer.position):
                if part.features.shape[1] != width:
                    found = f"'{table.column}' is {part.features.shape[1]} wide, {width} expected"
                    raise UserError(source, found, _OTHER_WIDTH)
                raw.append(replace(part, features=None, kept=_with_hashed(part.kept, maps)))
                yield part.features

        for served in serve_rows(features(), anonymizer, device=device):
            writer.write(replace(raw.popleft(), features=served))
            progress.update()
        if state_of_files([source]) != state:
            raise UserError(source, "was changed while it was read", "run the same command again")
    return table


def refuse_unchanged(anonymizer: Anonymizer) -> None:
    """Refuse an anonymizer that gives back what it gets, as one does that was never trained."""
    probe = torch.randn(4, anonymizer.architecture["feature_dim"], generator=torch.Generator().manual_seed(0))
    parameter = next(iter(anonymizer.state_dict().values()), probe)
    with torch.inference_mode():
        served = anonymizer.eval().map_rows(probe.to(parameter.device)).cpu()
    if torch.equal(served, probe):
        raise UserError("anonymizer", "leaves features as they are: raw features would be released", "train it first")


def refuse_mixing(anonymizer: Anonymizer) -> None:
    """Refuse an anonymizer by which a feature has no anonymized value of its own."""
    if anonymizer.attends_over == "batch":
        raise UserError(
            "anonymizer",
            "was trained with batch_as_sequence: its output for a feature depends on the rest of the batch",
            "train with batch_as_sequence = False to release features",
        )


def provenance(
    attributes: dict[str, Any], anonymizer: Anonymizer, *, source: Path, secret_keys: SecretKeys | None = None
) -> dict[str, Any]:
    """Attributes of what `anonymizer` makes of features with these `attributes`: with secret keys, of ours alone."""
    if "anonymizer_sha256" in attributes:
        raise UserError(source, "is a released store: its features are anonymized already", "give the raw features")
    kept = dict(attributes)
    if secret_keys is not None:
        kept = {name: value for name, value in kept.items() if name in OUR_ATTRIBUTES} | secret_keys.attributes
    return {
        **kept,
        "anonymizer": json.dumps(anonymizer.architecture, sort_keys=True),
        "anonymizer_sha256": weights_hash(anonymizer),
        "splavu_version": __version__,
    }


def state_of_files(paths: Sequence[Path]) -> str:
    """What shows that files change while they are read: a digest of their names, sizes and times."""
    digest = hashlib.sha256()
    for path in paths:
        state = path.stat()
        digest.update(f"{path.name}\0{state.st_size}\0{state.st_mtime_ns}\0".encode(errors="surrogateescape"))
    return digest.hexdigest()


def content_of_files(paths: Sequence[Path], taken: str = "", *, secret_keys: SecretKeys | None = None) -> str:
    """What shows that a release was made from other content: a digest of the files' names and bytes.

    Args:
        paths: The files.
        taken: What is taken of them.
        secret_keys: The digest is keyed with the secret: who has the raw files can't look for their release.
    """
    digest = hashlib.sha256() if secret_keys is None else hmac.new(secret_keys.secret, digestmod=hashlib.sha256)
    for path in paths:
        digest.update(f"{path.name}\0{file_hash(path)}\0".encode(errors="surrogateescape"))
    digest.update(taken.encode(errors="surrogateescape"))
    return digest.hexdigest()


def _kept_and_hashed(keep: Sequence[str]) -> tuple[list[str], list[str]]:
    """Names of the columns to keep, and of those to be hashed among them.

    Raises:
        UserError: One doesn't say whether it is hashed: a text or a number may name a video or a subject.
    """
    pairs = [item.rpartition(":") for item in keep]
    for item, (name, _, how) in zip(keep, pairs, strict=True):
        if not name or how not in ("plain", "hashed"):
            remedy = f"write '{item}:hashed' if it names videos or subjects, '{item}:plain' if it may be read"
            raise UserError("--keep", f"'{item}' doesn't say how it is kept with secret keys", remedy)
    return [name for name, *_ in pairs], [name for name, _, how in pairs if how == "hashed"]


def _with_hashed(kept: Mapping[str, Any], maps: Mapping[str, KeyMap]) -> dict[str, Any]:
    """The kept columns of a part, those of `maps` hashed; unknown stays unknown."""
    hashed = {
        name: [None if value is None else keys.released_of[str(value)] for value in kept[name].to_pylist()]
        for name, keys in maps.items()
    }
    return {**kept, **hashed}


def _file_name(column: str) -> str:
    return re.sub(r"[^\w-]", "_", column)


def _as_sequence(anonymizer: Anonymizer, video: Tensor) -> Tensor:  # [T, D] or [T, N, D] -> the same
    crops = video[None] if video.ndim == 2 else video.transpose(0, 1)  # [N, T, D]
    safe = anonymizer(crops)
    return safe[0] if video.ndim == 2 else safe.transpose(0, 1)
