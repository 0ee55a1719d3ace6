"""`anonymize` against a bare loop of matrix products: `python benchmarks/anonymize.py [--gigabytes 2] [--format hdf5]`.

For each format, a store of made-up features is released by the command line in a process of its own: throughput as a
share of the loop's, which maps as many rows in batches of the best size, reads nothing, tests nothing and writes
nothing; peak memory; and whether a run that is killed again and again ends with the same bytes. Each share is given
twice: by the clock, and by processor time, which other programs on the machine disturb less. The clock's includes the
start of Python.

Takes about three times the store in temporary disk space (four for Parquet), which it gives back.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splavu.anonymizers import Anonymizer, build_anonymizer
from splavu.release.serving import widest_tile
from splavu.runtime import checkpoints, cli
from splavu.stores.ordered_folder import FolderInOrder
from splavu.stores.ordered_hdf5 import StoreInOrder

WIDTH = 768
BATCHES = (64, 256, 1024, 4096, 8192)
LOOP_SHARE = 0.25
"""Of the rows that the loop maps; its time is counted as if it had mapped all."""


@dataclass(frozen=True)
class Spent:
    """What a process took."""

    seconds: float
    processor_seconds: float
    megabytes: float = 0.0
    """Largest resident memory."""


def bare(anonymizer: Anonymizer, num_rows: int) -> tuple[int, Spent]:
    """The best batch for the loop, and what `num_rows` take with it: batches side by side, a thread a processor."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)

    def loop(batch: int, count: int) -> None:
        torch.set_num_threads(1)
        rows = torch.randn(batch, WIDTH)
        with torch.inference_mode():
            for _ in range(count):
                anonymizer.map_rows(rows)

    def timed(batch: int, count: int) -> Spent:
        with ThreadPoolExecutor(num_threads) as pool:
            start, processor = time.perf_counter(), time.process_time()
            list(pool.map(loop, [batch] * num_threads, [count // num_threads] * num_threads))
            return Spent(time.perf_counter() - start, time.process_time() - processor)

    rates = {}
    for batch in BATCHES:
        loop(batch, 1)
        spent = timed(batch, 4 * BATCHES[-1] // batch)
        rates[batch] = 4 * BATCHES[-1] / spent.processor_seconds
        print(f"  loop, batches of {batch}: {rates[batch]:,.0f} rows a processor second", flush=True)
    best = max(rates, key=rates.get)
    count = round(LOOP_SHARE * num_rows / best)
    spent = timed(best, count)
    torch.set_num_threads(num_threads)
    factor = num_rows / (count // num_threads * num_threads * best)
    return best, Spent(spent.seconds * factor, spent.processor_seconds * factor)


def command(*arguments: object, kill_after: float | None = None) -> Spent | None:
    """Run `python -m splavu anonymize`; None if it was killed."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "splavu", "anonymize", *map(str, arguments), "--quiet", "--device", "cpu"],
        stdout=subprocess.DEVNULL,
    )
    if kill_after is not None:
        try:
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return None
        raise RuntimeError("it ended before it was killed")
    megabytes = 0.0
    while True:
        # Not ru_maxrss, which counts this process too: the other one began as a copy of it.
        megabytes = max(megabytes, _peak_megabytes(process.pid))
        ended, status, used = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        time.sleep(0.1)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"anonymize ended with exit code {process.returncode}")
    return Spent(time.perf_counter() - start, used.ru_utime + used.ru_stime, megabytes)


def _peak_megabytes(pid: int) -> float:
    """Largest resident memory of a process so far, as Linux tells it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM")), 0.0)


def clips(num_bytes: int, rng: np.random.Generator) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of videos of 5 to 20 clips."""
    headers, left = [], num_bytes // (4 * WIDTH)
    while left > 0:
        headers.append((f"video_{len(headers):07d}", (min(left, int(rng.integers(5, 21))), WIDTH)))
        left -= headers[-1][1][0]
    return headers


def long_videos(num_bytes: int, rng: np.random.Generator) -> list[tuple[str, tuple[int, ...]]]:
    """Names and shapes of videos of 100 to 1500 time steps."""
    headers, left = [], num_bytes // (4 * WIDTH)
    while left > 0:
        headers.append((f"video_{len(headers):07d}", (min(left, int(rng.integers(100, 1501))), WIDTH)))
        left -= headers[-1][1][0]
    return headers


def made_up(headers: list[tuple[str, tuple[int, ...]]], rng: np.random.Generator) -> Iterator[np.ndarray]:
    for _, shape in headers:
        yield rng.standard_normal(shape, dtype=np.float32)


def write_hdf5(path: Path, num_bytes: int) -> None:
    headers = clips(num_bytes, np.random.default_rng(0))
    with StoreInOrder(path, headers=headers, attributes={"encoder": "videoMAE"}, origin="") as writer:
        for features in made_up(headers, np.random.default_rng(1)):
            writer.write(features)


def write_npy(path: Path, num_bytes: int) -> None:
    headers = long_videos(num_bytes, np.random.default_rng(0))
    with FolderInOrder(path, headers=headers, attributes={"encoder": "videoMAE"}, origin="") as writer:
        for features in made_up(headers, np.random.default_rng(1)):
            writer.write(features)


def write_parquet(path: Path, num_bytes: int) -> None:
    import pyarrow
    import pyarrow.parquet

    rng, num_rows, group = np.random.default_rng(0), num_bytes // (4 * WIDTH), 20_000
    fields = [("id", pyarrow.string()), ("features", pyarrow.list_(pyarrow.float32(), WIDTH))]
    with pyarrow.parquet.ParquetWriter(path, pyarrow.schema(fields), use_dictionary=["id"]) as table:
        for start in range(0, num_rows, group):
            count = min(group, num_rows - start)
            values = pyarrow.array(rng.standard_normal(count * WIDTH, dtype=np.float32))
            features = pyarrow.FixedSizeListArray.from_arrays(values, WIDTH)
            names = pyarrow.array([f"clip_{index:08d}" for index in range(start, start + count)])
            table.write_table(pyarrow.table([names, features], schema=table.schema))


FORMATS: dict[str, tuple[str, Callable[[Path, int], None], tuple[str, ...]]] = {
    "hdf5": (".h5", write_hdf5, ()),
    "npy": ("", write_npy, ()),
    "parquet": (".parquet", write_parquet, ("--keep", "id")),
}


def digest(path: Path) -> str:
    """SHA-256 of a file, or of all files below a folder with their names."""
    total = hashlib.sha256()
    for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if file.is_file():
            total.update(str(file.relative_to(path)).encode())
            with file.open("rb") as content:
                while block := content.read(2**24):
                    total.update(block)
    return total.hexdigest()


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def measure(name: str, folder: Path, anonymizer: Anonymizer, aam: Path, args: argparse.Namespace) -> bool:
    """Print what was found of one format; whether killed runs ended with the same bytes."""
    suffix, write, options = FORMATS[name]
    source, target = folder / f"raw{suffix}", folder / f"released{suffix}"
    num_bytes = int(args.gigabytes * 1e9)
    num_rows = num_bytes // (4 * WIDTH)
    write(source, num_bytes)
    print(f"{name}: {num_rows:,} rows, {args.gigabytes:g} GB", flush=True)
    same = True
    if not args.only_kills:
        best, loop = bare(anonymizer, num_rows)
        whole = command("--aam", aam, source, target, *options)
        print(
            f"  loop, all rows, batches of {best}: {loop.seconds:.1f} s, {loop.processor_seconds:.1f} s of processors\n"
            f"  anonymize: {whole.seconds:.1f} s, {whole.processor_seconds:.1f} s of processors\n"
            f"  throughput as a share of the loop's: {loop.seconds / whole.seconds:.0%} by the clock, "
            f"{loop.processor_seconds / whole.processor_seconds:.0%} by processor time\n"
            f"  peak memory: {whole.megabytes:.0f} MB",
            flush=True,
        )
    else:
        whole = command("--aam", aam, source, target, *options)
        print(f"  anonymize: {whole.seconds:.1f} s, peak memory {whole.megabytes:.0f} MB", flush=True)
    if args.kills:
        expected = digest(target)
        remove(target)
        for moment in np.linspace(0.5, 1, args.kills, endpoint=False) / args.kills:
            command("--aam", aam, source, target, *options, kill_after=whole.seconds * float(moment))
            part = Path(f"{target}.partial/digests")
            print(f"  killed with {part.stat().st_size // 32 if part.exists() else 0} items logged", flush=True)
        last = command("--aam", aam, source, target, *options)
        same = digest(target) == expected
        print(
            f"  killed {args.kills} times, then finished in {last.seconds:.1f} s, peak memory {last.megabytes:.0f} MB: "
            f"{'the same bytes' if same else 'OTHER BYTES'}",
            flush=True,
        )
    remove(source)
    remove(target)
    return same


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--format", choices=FORMATS, nargs="+", default=list(FORMATS))
    parser.add_argument("--arch", choices=("transformer", "mlp"), default="transformer")
    parser.add_argument("--kills", type=int, default=1, help="0 for none")
    parser.add_argument("--only-kills", action="store_true", help="no loop to compare with")
    parser.add_argument("--folder", type=Path, default=None, help="for temporary files (default: the system's)")
    args = parser.parse_args(argv)
    torch.manual_seed(0)
    anonymizer = build_anonymizer(args.arch, WIDTH, identity=False).eval()
    print(f"{args.arch}, {WIDTH} wide, {torch.get_num_threads()} threads, tiles of {widest_tile(anonymizer)} rows")
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        content = {"fa_model_state_dict": anonymizer.state_dict(), "fa_architecture": anonymizer.architecture}
        aam = checkpoints.write(Path(folder) / "aam.pth", content)
        return 0 if all([measure(name, Path(folder), anonymizer, aam, args) for name in args.format]) else 1


if __name__ == "__main__":
    cli.run(main)
