"""Commands interrupted at random moments: `python tests/kill_commands.py --kills 50 --terms 50 --seed 0`.

Anonymize, fit, audit, extract and train, each a process of its own, get SIGKILL or SIGTERM at a moment drawn from the
whole time that they take, importing included. After each one must hold:

    no process is left after 2 seconds (10 after a SIGKILL, which nobody can pass on: workers see the end of a pipe);
    SIGTERM: one line and exit code 143, within 2 seconds (in Python's first tenth of a second no program can say so);
    inputs are as they were, and the output is complete or not there;

and after every few of them the same command, given once more, ends well, with the very result of a run that nobody
interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from fuzz_commands import GRACE, LOGGED, PR_SET_CHILD_SUBREAPER, REPOSITORY, children_left, snapshot

UNTIL_NOTICED = 10.0
"""Seconds after a SIGKILL until its orphans are gone."""
PYTHON_STARTS = 0.1
"""Seconds until Python runs the first line of a program; before it, a signal ends the process in Python's own way."""
CHAIN = 5
"""Interruptions until the command is given once more and may end."""
SPLAVU = [sys.executable, "-m", "splavu"]


@dataclass(frozen=True)
class Work:
    """A command that takes a few seconds."""

    prepare: Callable[[Path], None]
    """Writes its inputs to `in/` below a folder, which is its working folder."""
    line: Sequence[str]
    result: Callable[[Path], object]
    """What it leaves in `out/`, without times of day: equal for equal results."""


def _features(folder: Path, *, videos: int, clips: int, width: int) -> None:
    from splavu.stores import StoreWriter

    rng = np.random.default_rng(0)
    (folder / "in").mkdir()
    rows = ["filename,subject,tall,left_handed,label,split"]
    with StoreWriter(folder / "in/raw.h5", attributes={"encoder": "made up"}) as store:
        for i in range(videos):
            store.add(f"v{i:04d}", rng.normal(size=(clips, width)).astype(np.float32) + i % 2)
            split = ("train", "train", "test")[i * 24 // videos % 3]
            rows.append(f"v{i:04d},p{i * 24 // videos},{i % 2},{rng.integers(2)},{'abc'[i % 3]},{split}")
    (folder / "in/labels.csv").write_text("\n".join(rows) + "\n")


def _to_anonymize(folder: Path) -> None:
    from splavu.__main__ import main

    _features(folder, videos=1500, clips=40, width=256)
    raw = ["--raw", str(folder / "in/raw.h5"), "--quiet", "--keep", "20", "--out", str(folder / "in/pca.pth")]
    main(["fit", "pca", *raw])


def _to_extract(folder: Path) -> None:
    from fuzz_cases import loaded

    made = loaded("scripts/test_feature_extraction.py")
    for i in range(24):
        made.write_video(folder / f"in/v{i:02d}.avi", 60, seed=i)


def _to_train(folder: Path) -> None:
    from conftest import write_study

    write_study(folder / "in")


def _bytes(pattern: str) -> Callable[[Path], object]:
    return lambda out: {path.name: path.read_bytes() for path in out.glob(pattern)}


def _evidence(out: Path) -> object:
    found = json.loads((out / "report/evidence.json").read_text())
    return {name: value for name, value in found.items() if name not in ("seconds", "date", "created", "environment")}


def _weights(pattern: str) -> Callable[[Path], object]:
    def read(out: Path) -> object:
        import torch

        (path,) = out.glob(pattern)
        state = torch.load(path, weights_only=True)["fa_model_state_dict"]
        return {name: value.numpy().tobytes() for name, value in state.items()}

    return read


SETTINGS = (
    "data_root=None", "ft_tad_loss_weight=0", "ft_ad_loss_weight=0", "num_epochs=12", "val_freq=3", "num_layers_fa=1",
    "run_id=trained",
)  # fmt: skip
WORK = {
    "anonymize": Work(
        _to_anonymize,
        [*SPLAVU, "anonymize", "--aam", "in/pca.pth", "in/raw.h5", "out/released.h5", "--quiet", "--allow-fitted"],
        _bytes("released.h5"),
    ),
    "fit": Work(
        lambda folder: _features(folder, videos=400, clips=30, width=64),
        [*SPLAVU, "fit", "quantizer", "--raw", "in/raw.h5", "--labels", "in/labels.csv", "--codes", "64",
         "--min-subjects", "1", "--out", "out/q.pth", "--quiet"],
        _weights("q.pth"),
    ),
    "audit": Work(
        lambda folder: _features(folder, videos=72, clips=3, width=32),
        [*SPLAVU, "audit", "--released", "in/raw.h5", "--labels", "in/labels.csv", "--out", "out/report", "--quick",
         "--anyway", "--attributes-only", "--attributes", "tall,left_handed", "--workers", "2", "--quiet"],
        _evidence,
    ),
    "extract": Work(
        _to_extract,
        [sys.executable, str(REPOSITORY / "feature_extraction/feature_extraction_action.py"), "--videos", "in", "--out",
         "out/store.h5", "--workers", "2", "--quiet", "--device", "cpu"],
        _bytes("store.h5"),
    ),
    "train": Work(
        _to_train,
        [sys.executable, str(REPOSITORY / "multitask_train_fa.py"), "--params",
         str(REPOSITORY / "params/params_demo.py"),
         *(part for text in SETTINGS for part in ("--set", text)), "--quiet", "--device", "cpu"],
        _weights("runs/trained/model_temp.pth"),
    ),
}  # fmt: skip


@dataclass
class Tally:
    """What was seen of a command."""

    interrupted: int = 0
    ended: int = 0
    """It was done before the signal came."""
    left: int = 0
    changed: int = 0
    torn: int = 0
    """Outputs under their own name that aren't complete."""
    codes: int = 0
    """SIGTERMs that didn't end in one line and 143."""
    late: int = 0
    lost: int = 0
    """Runs that went on and ended with another result, or not at all."""
    slowest: float = 0.0


class Interrupter:
    """One command, its inputs, and the result of a run that nobody interrupts."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.work, self.folder = name, WORK[name], folder
        folder.mkdir()
        self.work.prepare(folder)
        self.inputs = snapshot(folder / "in")
        self.tally = {signal.SIGKILL: Tally(), signal.SIGTERM: Tally()}
        started = time.monotonic()
        self._fresh()
        done = self._start().wait()
        if done not in (0, 4):
            raise RuntimeError(f"{name} ends with {done}: {(folder / 'stderr').read_text()}")
        self.seconds = time.monotonic() - started
        self.expected = self.work.result(folder / "out")

    def _fresh(self) -> None:
        shutil.rmtree(self.folder / "out", ignore_errors=True)
        (self.folder / "out").mkdir()

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": str(REPOSITORY),
            "SPLAVU_DATA": str(self.folder / "in/data"), "SPLAVU_FEATURES": str(self.folder / "in/features"),
            "SPLAVU_RUNS": str(self.folder / "out/runs"),
        }  # fmt: skip
        with (self.folder / "stdout").open("wb") as out, (self.folder / "stderr").open("wb") as err:
            return subprocess.Popen(
                self.work.line, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=self.folder, env=environment,
                start_new_session=True,
            )  # fmt: skip

    def interrupt(self, kind: signal.Signals, after: float) -> None:
        """Once, and see what is left."""
        tally = self.tally[kind]
        process = self._start()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(after)
        if process.returncode is not None:
            tally.ended += 1
        else:
            sent = time.monotonic()
            process.send_signal(kind)
            try:
                code = process.wait(30)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                code = process.wait()
            taken = time.monotonic() - sent
            tally.slowest = max(tally.slowest, taken)
            tally.interrupted += 1
            if kind == signal.SIGTERM and code != 0:
                text = (self.folder / "stderr").read_text(errors="replace")
                lines = [line for line in text.splitlines() if not line.startswith(LOGGED)]
                before_any_code = code == -kind and after < PYTHON_STARTS
                if not before_any_code and (code != 143 or len(lines) != 1):
                    tally.codes += 1
                    print(f"{self.name}: exit code {code} after SIGTERM: {text[-500:]}", file=sys.stderr)
                tally.late += taken > GRACE
        if left := children_left(GRACE if kind == signal.SIGTERM else UNTIL_NOTICED):
            tally.left += 1
            print(f"{self.name}: left after {kind.name}: {left}", file=sys.stderr)
        tally.changed += snapshot(self.folder / "in") != self.inputs
        tally.torn += self._is_torn()

    def _is_torn(self) -> bool:
        """Whether there is a result that isn't the right one."""
        try:
            found = self.work.result(self.folder / "out")
        except (OSError, ValueError):
            return False  # none yet: a folder without its last file
        except Exception as error:
            print(f"{self.name}: torn: {type(error).__name__}: {error}", file=sys.stderr)
            return True
        return bool(found) and self.name not in ("train",) and found != self.expected

    def go_on(self, kind: signal.Signals) -> None:
        """The same command once more, to its end."""
        code = self._start().wait()
        if code not in (0, 4) or self.work.result(self.folder / "out") != self.expected:
            self.tally[kind].lost += 1
            print(f"{self.name}: {code}: {(self.folder / 'stderr').read_text()[-500:]}", file=sys.stderr)
        children_left(GRACE)
        self._fresh()

    def run(self, counts: dict[signal.Signals, int], rng: random.Random) -> None:
        for kind, count in counts.items():
            for number in range(count):
                self.interrupt(kind, rng.uniform(0, self.seconds))
                if number % CHAIN == CHAIN - 1 or number == count - 1:
                    self.go_on(kind)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50, help="SIGKILLs of all commands together")
    parser.add_argument("--terms", type=int, default=50, help="SIGTERMs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(WORK), default=list(WORK))
    args = parser.parse_args(argv)
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    rng = random.Random(args.seed)
    rows = ["| command | seconds | signal | interrupted | done before | processes left | inputs changed | torn outputs "
            "| not one line and 143 | later than 2 s | lost | slowest end |", "|---" * 12 + "|"]  # fmt: skip
    faults = 0
    with tempfile.TemporaryDirectory(prefix="kill-") as scratch:
        for place, name in enumerate(args.only):
            share = {
                kind: count // len(args.only) + (place < count % len(args.only))
                for kind, count in ((signal.SIGKILL, args.kills), (signal.SIGTERM, args.terms))
            }
            one = Interrupter(name, Path(scratch) / name)
            one.run(share, rng)
            for kind, t in one.tally.items():
                faults += t.left + t.changed + t.torn + t.codes + t.late + t.lost
                rows.append(
                    f"| {name} | {one.seconds:.1f} | {kind.name} | {t.interrupted} | {t.ended} | {t.left} "
                    f"| {t.changed} | {t.torn} | {t.codes} | {t.late} | {t.lost} | {t.slowest:.1f} s |"
                )
            print(rows[-2], rows[-1], sep="\n", file=sys.stderr)
    print("\n".join(rows))
    print(f"seed {args.seed}: {faults} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
