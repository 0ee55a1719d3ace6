"""The commands of a protection, as a user would type them: each run once, and again where what it reads has changed."""

from __future__ import annotations

import json
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splavu.errors import UserError
from splavu.runtime.files import file_hash, write_text
from splavu.runtime.records import as_written, read_record

SCHEMA = "splavu-protect/1"
MARKS = (b'"schema": "splavu-protect/',)
REMEDY = "give another folder as --out"


@dataclass(frozen=True)
class Step:
    """One command."""

    argv: Sequence[str]
    """As after `splavu`."""
    inputs: Sequence[Path]
    outputs: Sequence[Path]
    is_kept: bool = False
    """Its output stays though its inputs have changed: an anonymizer, to which videos were added."""
    allowed: Sequence[int] = (0,)
    """Exit codes after which the next step may run."""
    is_resumed: bool = False
    """It is run each time, and does by itself what isn't done yet."""

    @property
    def command(self) -> str:
        """To copy and paste."""
        return f"python -m splavu {shlex.join(self.argv)}"


class Record:
    """What was asked for and what was run, in a file of JSON.

    Args:
        path: Written after each step.
        options: What the release is made of; a folder holds one release.

    Raises:
        UserError: The folder holds a release made of something else.
    """

    def __init__(self, path: Path, options: Mapping[str, Any]) -> None:
        self.path = path
        self.content: dict[str, Any] = {"schema": SCHEMA, "options": dict(options), "steps": {}}
        if path.exists():
            with as_written(path, REMEDY):
                found = read_record(path, REMEDY)
                for name, value in options.items():
                    if found["options"].get(name) != value:
                        problem = f"holds a release made with {name} = {found['options'].get(name)}, not {value}"
                        raise UserError(path.parent, problem, f"{REMEDY}, or the same options")
                self.content = found

    def get(self, name: str) -> Any:
        """What was kept under a name; None if nothing was."""
        return self.content.get(name)

    def keep(self, name: str, value: Any) -> None:
        """Keep a plain value."""
        self.content[name] = value
        write_text(self.path, json.dumps(self.content, indent=1) + "\n")

    def is_done(self, step: Step) -> bool:
        """Whether the step was run as it would be now, and its outputs are what it wrote."""
        found = self.content["steps"].get(step.argv[0] + " " + str(step.outputs[0]))
        if found is None or found["argv"] != list(step.argv) or found["code"] not in step.allowed:
            return False
        if any(not path.exists() for path in step.outputs) or found["outputs"] != _hashes(step.outputs):
            return False
        return step.is_kept or found["inputs"] == _hashes(step.inputs)

    def run(self, step: Step, call: Callable[[Sequence[str]], int]) -> int:
        """Run a step unless it is done; its exit code."""
        name = step.argv[0] + " " + str(step.outputs[0])
        print(f"\n$ {step.command}", flush=True)
        if not step.is_resumed and self.is_done(step):
            print("done before", flush=True)
            return self.content["steps"][name]["code"]
        started = time.monotonic()
        code = call(step.argv)
        if code not in step.allowed:
            return code
        self.content["steps"][name] = {
            "argv": list(step.argv),
            "code": code,
            "seconds": round(time.monotonic() - started, 1),
            "inputs": _hashes(step.inputs),
            "outputs": _hashes([path for path in step.outputs if path.exists()]),
        }
        self.keep("steps", self.content["steps"])
        return code


def _hashes(paths: Sequence[Path]) -> dict[str, str]:
    return {str(path): file_hash(path) for path in paths if path.exists()}
