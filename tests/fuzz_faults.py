"""Faults that the project once had, put back one by one: does the fuzzer of commands find each within 1,000 cases?

    python tests/fuzz_faults.py --cases 1000 --seed 0

A fault is a function that puts the former behaviour in the place of today's; the cases are forks, so they have it too.
For each, the commands that it could concern are fuzzed, without and with the fault, and the first case whose finding is
new is printed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Fault:
    """One of them."""

    put_back: Callable[[], None]
    commands: tuple[str, ...]
    """Those that it concerns; the campaign spends its cases on them in turn, as on all."""


def everywhere(old: Any, new: Any) -> None:
    """Put `new` in the place of `old` in every module that has it."""
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()) if module is not None else ():
            if value is old:
                setattr(module, name, new)


def output_over_input() -> None:
    """No target is compared with what is read."""
    from splavu.runtime import files

    @contextmanager
    def unclaimed(path: object, **options: object) -> Iterator[None]:
        yield

    everywhere(files.check_target, lambda path, **options: None)
    everywhere(files.claimed, unclaimed)
    everywhere(files._refuse_other_format, lambda path, new: None)


def links_are_skipped() -> None:
    """Soft and external links in HDF5 are no keys, and nothing is said."""
    from splavu.stores import hdf5_contents

    walk = hdf5_contents._Walk
    walk.followed = lambda self, group, name, kind, key: None  # type: ignore[method-assign]


def other_files_are_read() -> None:
    """External raw storage and virtual datasets are read like any other."""
    from h5py import h5d, h5t

    from splavu.stores import hdf5_contents

    entry = hdf5_contents._entry

    def trusting(dataset: Any, file: Path, name: bytes, size: int) -> Any:
        layout = dataset.get_create_plist()
        if layout.get_layout() == h5d.VIRTUAL or layout.get_external_count():
            is_float = dataset.get_type().equal(h5t.IEEE_F32LE)
            return (
                hdf5_contents.Entry(dataset.shape, hdf5_contents.FLOAT, None, None, file, name, 0) if is_float else None
            )
        return entry(dataset, file, name, size)

    everywhere(entry, trusting)


def sizes_are_believed() -> None:
    """A dataset's declared shape is allocated, whatever the file holds."""
    from splavu.runtime import limits
    from splavu.stores import hdf5_contents

    entry = hdf5_contents._entry

    def trusting(dataset: Any, file: Path, name: bytes, size: int) -> Any:
        found = entry(dataset, file, name, size)
        if isinstance(found, hdf5_contents.Refusal) and "declares" in found.problem:
            return hdf5_contents.Entry(dataset.shape, dataset.dtype, None, None, file, name, 0)
        return found

    everywhere(entry, trusting)
    everywhere(limits.require, lambda *args, **options: None)


def the_end_of_a_key_is_an_extension() -> None:
    """What follows the last dot of a name is taken off, known or not."""
    from splavu.data import keys

    everywhere(keys.without_extension, lambda name: name.rpartition(".")[0] or name)


def words_are_no_attributes() -> None:
    """Columns of yes and no, True and False are left out, and nothing is said."""
    from splavu.data import private_labels

    column = private_labels._kind

    def of_numbers(name: str, cells: Sequence[str], path: Path) -> Any:
        kind = column(name, cells, path)
        words = {cell.lower() for cell in cells} & {"yes", "no", "true", "false", "t", "f"}
        return "class" if kind == "binary" and words else kind

    everywhere(column, of_numbers)


def releases_go_by_time() -> None:
    """A finished release is current if it isn't older than its source."""
    from splavu.stores import ordered

    ordered.OrderedWriter._is_made_from_origin = lambda self, found: True  # type: ignore[attr-defined]


def the_program_handles_no_error() -> None:
    """The installed program `splavu` ends in Python's own way."""
    from splavu import __main__ as program

    program.entry = lambda: sys.exit(program.main())  # type: ignore[assignment]


def names_are_printed_raw() -> None:
    """Control characters of a key reach the terminal."""
    from splavu import errors

    everywhere(errors.printable, lambda text: text)


def companions_are_features() -> None:
    """`._a.npy`, which macOS writes, is taken for features."""
    from splavu.runtime import files

    everywhere(files.is_companion, lambda name: False)


FAULTS: dict[str, Fault] = {
    "output over input": Fault(output_over_input, ("fit", "anonymize", "export", "audit-report")),
    "links skipped in silence": Fault(links_are_skipped, ("fit", "anonymize", "verify")),
    "reads outside the store": Fault(other_files_are_read, ("fit", "anonymize", "verify")),
    "declared sizes believed": Fault(sizes_are_believed, ("fit", "anonymize", "verify")),
    "the end of a key for an extension": Fault(the_end_of_a_key_is_an_extension, ("fit", "audit", "rename-keys")),
    "columns of words left out": Fault(words_are_no_attributes, ("fit", "audit")),
    "stale release": Fault(releases_go_by_time, ("anonymize",)),
    "no error handling in the program": Fault(the_program_handles_no_error, ("fit", "anonymize", "verify", "export")),
    "names printed raw": Fault(names_are_printed_raw, ("anonymize", "verify")),
    "companions of macOS": Fault(companions_are_features, ("anonymize", "verify")),
}


def put_back(names: Sequence[str]) -> None:
    """Put the named faults back into this process."""
    for name in names:
        FAULTS[name].put_back()


def findings(options: Sequence[str]) -> list[dict]:
    """The records of a campaign, in the order of its cases."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)  # the fuzzer is another user
        records = Path(folder) / "records.jsonl"
        program = str(Path(__file__).with_name("fuzz_commands.py"))
        subprocess.run([sys.executable, program, *options, "--records", str(records)], stdout=subprocess.DEVNULL)
        return [json.loads(line) for line in records.read_text().splitlines()]


def first_found(name: str, *, cases: int, seed: int, limit: float) -> tuple[int | None, dict | None]:
    """The number of cases until one has a finding that it hasn't without the fault, and that finding."""
    fault, step, done = FAULTS[name], 100, 0
    while done < cases:
        options = ["--seed", str(seed), "--limit", str(limit), "--only", *fault.commands, "--cases", str(step)]
        options += ["--first", str(done // len(fault.commands))]
        with_fault = findings([*options, "--faults", name])
        suspects = [(number, record) for number, record in enumerate(with_fault, start=1) if record["finding"]]
        if suspects:
            without = {(r["command"], r["index"]) for r in findings(options) if r["finding"]}
            for number, record in suspects:
                if (record["command"], record["index"]) not in without:
                    return done + number, record["finding"]
        done += step // len(fault.commands) * len(fault.commands)
    return None, None


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--limit", type=float, default=30)
    parser.add_argument("--only", nargs="+", choices=list(FAULTS), default=list(FAULTS))
    args = parser.parse_args(argv)
    print("| fault put back | found at case | as | command, what was special |\n|---|---|---|---|")
    missed = 0
    for name in args.only:
        number, finding = first_found(name, cases=args.cases, seed=args.seed, limit=args.limit)
        missed += number is None
        found = "" if finding is None else f"{finding['kind']} | {finding['command']}: {finding['case']}"
        print(f"| {name} | {number or 'not'} | {found} |", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
