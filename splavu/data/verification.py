"""Whether a feature store is complete and how it was made: every fault by key, not only the first.

Note: features can be wrong without being damaged. Two videos with the same bits are a fault here, because a copy under
a second name (in two splits, or of two subjects) makes results too good. A key whose checksum differs was changed after
it was extracted, even if its numbers look normal.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from tqdm import tqdm

from splavu.data.encoders import ENCODERS
from splavu.data.key_map import KEYS_ATTRIBUTE, KeyMap
from splavu.errors import UserError, printable
from splavu.stores import HDF5_ERRORS, Attributes, FeatureFolder, FeatureReader, FeatureStore
from splavu.stores.reader import rows_in, shape_problem

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ALIVE = None
"""The message of a process that is still reading."""
WHOLE = "(the whole file)"
"""In place of a key where no key can be read."""
ORIGIN = ("encoder", "weights_sha256", "preprocessing")
"""Attributes that features must share to be compared with each other."""


@dataclass(frozen=True)
class Fault:
    """What is wrong with the features of one key."""

    key: str
    problem: str


@dataclass(frozen=True)
class StoreReport:
    """The result for one store."""

    path: Path
    attributes: Attributes
    """Provenance; empty for foreign stores."""
    num_keys: int
    num_rows: int
    """Clips, time steps or views of the keys without a fault."""
    feature_dim: int | None
    """The encoder's width, or the one that most keys have."""
    num_unrecorded: int
    """Keys that were stored without a checksum, of those that could be read."""
    faults: tuple[Fault, ...]
    keys: tuple[str, ...] = field(default=(), repr=False)


def verify_apart(
    path: str | os.PathLike[str], *, feature_dim: int | None = None, quiet: bool = False, patience: float = 300.0
) -> StoreReport:
    """`verify_store` in a separate process: some damaged files make HDF5 crash or loop for ever.

    Args:
        path: As for `verify_store`.
        feature_dim: As for `verify_store`.
        quiet: As for `verify_store`.
        patience: Seconds without reading a key after which the file counts as damaged.
    """
    context = multiprocessing.get_context("fork" if "fork" in multiprocessing.get_all_start_methods() else "spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(  # pyright: ignore[reportAttributeAccessIssue]
        target=_verify_and_send, args=(sender, path, feature_dim, quiet), daemon=True
    )
    process.start()
    sender.close()
    try:
        while receiver.poll(patience):
            if (message := receiver.recv()) is ALIVE:
                continue
            if isinstance(message, UserError):
                raise message
            return message
        problem = f"reading it made no progress for {patience:.0f} s: its structure is damaged"
    except EOFError:
        process.join()
        if process.exitcode >= 0:
            raise RuntimeError(f"{path}: the process that verifies it failed; its error is on stderr") from None
        problem = f"reading it crashes HDF5 (exit code {process.exitcode}): its structure is damaged"
    finally:
        process.kill()
        process.join()
    return StoreReport(Path(path), {}, 0, 0, None, 0, (Fault(WHOLE, problem),))


def _verify_and_send(sender: Connection, path: Path, feature_dim: int | None, quiet: bool) -> None:
    last = time.monotonic()

    def on_key() -> None:
        nonlocal last
        if time.monotonic() - last > 1:
            sender.send(ALIVE)
            last = time.monotonic()

    try:
        sender.send(verify_store(path, feature_dim=feature_dim, quiet=quiet, on_key=on_key))
    except UserError as error:
        sender.send(error)


def verify_store(
    path: str | os.PathLike[str],
    *,
    feature_dim: int | None = None,
    quiet: bool = False,
    on_key: Callable[[], None] = lambda: None,
) -> StoreReport:
    """Read every feature of a store once. Takes the memory of its largest key.

    Args:
        path: An HDF5 store, or a folder of .npy files, one per video.
        feature_dim: Width expected; None takes the width of the encoder that the attributes name, or else the one that
            most keys have.
        quiet: No progress bar.
        on_key: Called after each step; there are two per key.

    Raises:
        UserError: `path` is neither of them, or doesn't exist.
    """
    path = Path(path)
    try:
        reader = FeatureFolder(path) if path.is_dir() else FeatureStore(path, check_first=False)
        keys = reader.keys()
    except UserError as error:
        if not _claims_to_be_hdf5(path):
            raise
        return StoreReport(path, {}, 0, 0, None, 0, (Fault(WHOLE, error.problem),))
    except HDF5_ERRORS as error:
        return StoreReport(path, {}, 0, 0, None, 0, (Fault(WHOLE, f"its list of keys cannot be read ({error})"),))

    headers, faults = _headers(reader, keys, on_key)
    width = feature_dim or _encoder_width(reader.attributes) or _usual_width(headers)
    reader.expect(width)
    first_of: dict[str, str] = {}  # checksum -> key
    num_rows = num_unrecorded = 0
    for key in tqdm(keys, desc=printable(path.name), unit="key", disable=quiet or None, leave=False):
        on_key()
        if key in faults:
            continue
        try:
            problem, recorded = _problem(reader, key, headers[key], width, first_of)
        except (UserError, *HDF5_ERRORS) as error:
            problem, recorded = f"cannot be read ({getattr(error, 'problem', error)})", True
        num_unrecorded += not recorded
        if problem:
            faults[key] = problem
        else:
            num_rows += rows_in(headers[key][0])
    listed = tuple(Fault(key, faults[key]) for key in sorted(faults))
    return StoreReport(path, reader.attributes, len(keys), num_rows, width, num_unrecorded, listed, tuple(keys))


def described(report: StoreReport) -> Iterator[str]:
    """The report as lines: size, provenance, then one line per fault."""
    size = f"{report.num_keys} keys, {report.num_rows} rows, {report.feature_dim} wide"
    state = f"{len(report.faults)} faults" if report.faults else "no fault"
    yield printable(f"{report.path}: {size}: {state}")
    if report.attributes:
        yield from (printable(f"  {name}: {value}") for name, value in sorted(report.attributes.items()))
    else:
        yield "  no provenance: it is unknown which encoder and weights made these features"
    if report.num_unrecorded:
        yield f"  {report.num_unrecorded} keys have no checksum (stored by another program, or by an older version)"
    yield from (printable(f"  fault: {fault.key}: {fault.problem}") for fault in report.faults)


def by_raw_keys(report: StoreReport, keys: KeyMap) -> StoreReport:
    """The report with faults by raw key, and a fault for each key that the owner's map lacks.

    A store whose keys aren't hashed is left as it is.
    """
    if KEYS_ATTRIBUTE not in report.attributes:
        return report
    faults = [
        replace(fault, key=f"{keys.raw_of[fault.key]} ({fault.key})" if fault.key in keys.raw_of else fault.key)
        for fault in report.faults
    ]
    faults += [Fault(key, f"is in no row of {keys.source}") for key in report.keys if key not in keys.raw_of]
    return replace(report, faults=tuple(faults))


def differences(one: Attributes, other: Attributes) -> list[str]:
    """The attributes of `ORIGIN` in which two stores differ; one that a store lacks doesn't count."""
    return [name for name in ORIGIN if name in one and name in other and one[name] != other[name]]


def _headers(
    reader: FeatureReader, keys: list[str], on_key: Callable[[], None]
) -> tuple[dict[str, tuple], dict[str, str]]:
    """(key -> (shape, dtype), key -> problem), for all keys."""
    headers, faults = {}, {}
    for key in keys:
        on_key()
        try:
            headers[key] = reader.header(key)
        except (UserError, *HDF5_ERRORS) as error:
            faults[key] = getattr(error, "problem", str(error))
    return headers, faults


def _problem(
    reader: FeatureReader, key: str, header: tuple, width: int | None, first_of: dict[str, str]
) -> tuple[str, bool]:
    """What is wrong with one key ('' if nothing), and whether a checksum was recorded; notes its own in `first_of`."""
    shape, dtype = header
    if dtype.kind != "f":
        return f"holds {dtype}, features are floats", True
    if problem := shape_problem(shape, width)[0]:
        return problem, True
    features, digest, as_written = reader.examined(key)
    if as_written is False:
        return "was changed after it was written: its checksum differs", True
    if num_bad := int(np.size(features) - np.isfinite(features).sum()):
        return f"holds {num_bad} values that are not finite, or too large for float32", as_written is not None
    first = first_of.setdefault(f"{digest} {shape}", key)
    problem = "" if first == key else f"has the same features as '{first}'"
    return problem, as_written is not None


def _encoder_width(attributes: Attributes) -> int | None:
    encoder = ENCODERS.get(str(attributes.get("encoder")))
    return encoder.feature_dim if encoder else None


def _usual_width(headers: dict[str, tuple]) -> int | None:
    widths = Counter(shape[-1] for shape, _ in headers.values() if shape)
    return widths.most_common(1)[0][0] if widths else None


def _claims_to_be_hdf5(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE)) == HDF5_SIGNATURE
