"""A run folder: the parameters, versions and results of a run, each file complete or not at all."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from splavu.errors import UserError, writing
from splavu.runtime import extras
from splavu.runtime.environment import versions
from splavu.runtime.files import ROOM, claimed, write_text
from splavu.runtime.params import as_dict, build
from splavu.runtime.records import as_written, read_record, read_records
from splavu.runtime.schema import folder_name

logger = logging.getLogger(__name__)

START_AGAIN = "restore it, or remove the run folder and run again"
TABLE = "table.md"
"""A run's section of a report: a heading of second level, text, tables, pictures in the same folder."""


class RunFolder:
    """`root/run_id/`: params.json, versions.json, metrics.jsonl (record per line), tensorboard/, checkpoints, results.

    Args:
        root: The folder of all runs.
        run_id: A name; may hold '/' to group runs, but not lead out of `root`.
    """

    def __init__(self, root: str | Path, run_id: str) -> None:
        self.path = Path(root) / run_id
        is_below = folder_name(run_id) and Path(root).resolve() in self.path.resolve().parents
        if not is_below:
            raise UserError("run_id", f"'{run_id}' is not a folder below {root}", "use letters, digits, '_' and '-'")
        self._writer = None

    @contextlib.contextmanager
    def held(self, *, room: int = ROOM) -> Iterator[None]:
        """A block in which no other process writes to the run folder.

        Args:
            room: Bytes that will be written at least.

        Raises:
            UserError: Another process is at work on the run, or nothing can be written there, or not as much.
        """
        with claimed(self.path, is_folder=True, room=room):
            yield

    def record(self, params: Any) -> None:
        """Write the resolved parameters (a dataclass) and the versions of everything that decides a number."""
        self.write_json("params.json", as_dict(params))
        self.write_json("versions.json", versions())

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` as JSON to the file `name` of the run folder."""
        return write_text(self.path / name, json.dumps(value, indent=1, allow_nan=True) + "\n")

    def read_json(self, name: str) -> Any:
        """The value that `write_json` wrote; None if there is none."""
        path = self.path / name
        return read_record(path, START_AGAIN) if path.is_file() else None

    def cached_result(
        self,
        params: Any,
        inputs: Mapping[str, Any],
        evaluate: Callable[[], dict[str, Any]],
        *,
        file: str = "results.json",
        key: str | None = None,
        table: Callable[[dict[str, Any]], str] | None = None,
        force: bool = False,
    ) -> tuple[dict[str, Any], bool]:
        """Return the cached result for these inputs, or evaluate and cache it; second value: whether it was cached.

        Args:
            params: Recorded in the folder; part of the inputs.
            inputs: What else decides the result: hashes of data and weights.
            evaluate: Computes the result, as JSON values.
            file: File of the cached result.
            key: Its name in the file; None takes the whole file.
            table: Result -> the run's section for a report.
            force: Evaluate even if it is cached.
        """
        inputs = {"params": as_dict(params), **inputs}
        found = self.read_json(file) or {}
        result = found.get(key) if key else found
        if result and not force and _with_names_of_today(result.get("inputs"), type(params)) == inputs:
            return result, True
        with self.held():
            result = {**evaluate(), "inputs": inputs}
            self.record(params)
            if table is not None:
                write_text(self.path / TABLE, table(result))
            self.write_json(file, {key: result} if key else result)
        return result, False

    def log(self, *, step: int, **metrics: float) -> None:
        """Append one record to metrics.jsonl, and to TensorBoard if installed; `step` counts epochs in training."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            with (self.path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps({"step": step, **metrics}) + "\n")
            if self._writer is None and (writer := _summary_writer()) is not None:
                self._writer = writer(str(self.path / "tensorboard"), purge_step=step)
            if self._writer is not None:
                for name, value in metrics.items():
                    self._writer.add_scalar(name, value, step)

    def history(self) -> list[dict[str, float]]:
        """The records of metrics.jsonl, oldest first."""
        path = self.path / "metrics.jsonl"
        return read_records(path, START_AGAIN) if path.is_file() else []

    def rewind(self, step: int) -> None:
        """Drop the records from `step` on: a resumed run writes them again. An incomplete last line is dropped too."""
        path = self.path / "metrics.jsonl"
        if not path.is_file():
            return
        with as_written(path, START_AGAIN):
            kept = [record for record in self.history() if record["step"] < step]
        write_text(path, "".join(json.dumps(record) + "\n" for record in kept))

    def close(self) -> None:
        """Flush TensorBoard."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


@functools.cache  # one warning for a process
def _summary_writer() -> Any:
    """TensorBoard's writer; None where it is not installed, for metrics.jsonl holds the same values."""
    if not extras.is_installed("tensorboard"):
        logger.warning("no TensorBoard curves: %s (metrics.jsonl has the same values)", extras.remedy("train"))
        return None
    # Imported late: TensorBoard takes a second to load, and only training needs it.
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter


def _with_names_of_today(inputs: Mapping[str, Any] | None, schema: type) -> Mapping[str, Any] | None:
    """Stored inputs as `schema` writes them today: values under a former name are the same values."""
    if inputs is None:
        return None
    try:
        return {**inputs, "params": as_dict(build(schema, inputs["params"], source="stored parameters"))}
    except UserError:  # of another version, whose parameters were others
        return inputs


def summarised(metrics: Mapping[str, float]) -> str:
    """Metrics on one line, for the terminal."""
    return "  ".join(f"{name} {value:.4g}" for name, value in metrics.items())
