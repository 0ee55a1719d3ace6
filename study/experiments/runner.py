"""Runs jobs in processes of their own, several at a time, and keeps what is finished.

Note: killing the runner does not kill its child processes. They end by themselves, and the same command started again
waits for them (`hold`); then the scripts continue from their checkpoints.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from splavu.attacks.gates import GATE_FAILED, UNDECIDED
from splavu.errors import UserError
from splavu.runtime import signals
from splavu.runtime.files import write_text
from splavu.runtime.records import DAMAGE, read_record
from splavu.runtime.run_folder import START_AGAIN
from study import config
from study.experiments.jobs import Job

STAMP = "reproduced.json"
"""In a run folder: the commands that ended well, the roots that they read, how long it took. Without it a job runs."""
LOG = "reproduce.log"
LOCK = "reproduce.lock"
UNRELIABLE = {GATE_FAILED: "gate failed", UNDECIDED: "undecided"}
"""Exit codes of evaluations that failed their own gates, or have too few subjects for these: states of their jobs. They
leave a result, but none to rely on."""


@dataclass(frozen=True)
class Outcome:
    """Of a job."""

    state: str
    """done, gate failed, undecided (too few subjects), failed, not run."""
    detail: str = ""
    seconds: float | None = field(default=None, compare=False)
    """That its commands took; of a job that was killed, since it went on."""


def surroundings(data: Path | None = None, features: Path | None = None) -> dict[str, str]:
    """What commands find where, by the variables that config.py reads; its own places where none is given."""
    data, features = data or config.DATA, features or config.FEATURES
    roots = {"SPLAVU_DATA": data, "SPLAVU_FEATURES": features, "SPLAVU_RUNS": config.RUNS}
    return {name: str(Path(root).resolve()) for name, root in roots.items()}


def checkpoint_of(name: str) -> str:
    """In a command: the checkpoint that a training job has chosen, which is known when the job is done."""
    return f"{{checkpoint of {name}}}"


def stamps(jobs: Sequence[Job], environment: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Name -> what decides whether a finished job is this one: commands, roots, and all of what it came after."""
    made: dict[str, dict[str, Any]] = {}
    for job in jobs:
        after = {name: hashlib.sha256(json.dumps(made[name]).encode()).hexdigest() for name in job.after}
        made[job.name] = {"commands": [list(command) for command in job.commands], "after": after, **environment}
    return made


def finished(job: Job, folder: Path, stamp: Mapping[str, Any]) -> Outcome | None:
    """How it ended before, if it did and its result is there."""
    path = folder / job.name / STAMP
    if not path.is_file() or not (folder / job.name / job.result).is_file():
        return None
    try:
        found = dict(read_record(path, START_AGAIN))
    except (UserError, *DAMAGE):
        return None
    state, seconds = found.pop("state", "done"), found.pop("seconds", None)
    return Outcome(state, seconds=seconds) if found == stamp else None


def run_all(
    jobs: Sequence[Job], folder: Path, environment: Mapping[str, str], *, at_once: int, device: str, quiet: bool
) -> dict[str, Outcome]:
    """Run what isn't done, each job after those that it needs; what needs a failed one isn't run."""
    signals.work_is_kept()
    made = stamps(jobs, environment)
    outcomes = {job.name: found for job in jobs if (found := finished(job, folder, made[job.name]))}
    if outcomes and not quiet:
        print(f"{len(outcomes)} of {len(jobs)} jobs are done already")
    waiting = [job for job in jobs if job.name not in outcomes]
    running: dict[Future[Outcome], Job] = {}
    with ThreadPoolExecutor(at_once) as threads:
        try:
            while waiting or running:
                for job in list(waiting):
                    before = [outcomes.get(name) for name in job.after]
                    if any(one is not None and one.state in ("failed", "not run") for one in before):
                        outcomes[job.name] = Outcome("not run", "what it needs failed")
                        waiting.remove(job)
                    elif None not in before and len(running) < at_once:
                        waiting.remove(job)
                        future = threads.submit(run_job, job, folder, made[job.name], environment, device)
                        running[future] = job
                if not running:
                    continue
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    job = running.pop(future)
                    outcomes[job.name] = future.result()
                    if not quiet:
                        done = f"{len(outcomes)} of {len(jobs)}"
                        print(f"[{done}] {job.name}: {outcomes[job.name].state}", flush=True)
        except BaseException:
            while not all(future.done() for future in running):  # a job may be about to start its next command
                for process in list(signals.PROGRAMS):  # each leaves a checkpoint to go on from
                    process.terminate()
                wait(running, timeout=0.1)
            raise
    return outcomes


def run_job(
    job: Job,
    folder: Path,
    stamp: Mapping[str, Any],
    environment: Mapping[str, str],
    device: str,
) -> Outcome:
    """Run a job's commands one after the other, their output in its log."""
    here = folder / job.name
    here.mkdir(parents=True, exist_ok=True)
    (here / STAMP).unlink(missing_ok=True)
    state = "done"
    with (here / LOG).open("ab") as log, (here / LOCK).open("ab") as lock:
        descriptors, begun = hold(lock), time.monotonic()
        for command in job.commands:
            program, *arguments = (_with_checkpoints(part, folder) for part in command)
            script = program if program == "-m" else str(config.HERE / program)
            log.write(f"$ python {' '.join((program, *arguments))}\n".encode())
            log.flush()
            process = subprocess.Popen(
                [sys.executable, script, *arguments, "--device", device],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=config.HERE,
                env={"OMP_NUM_THREADS": "1", **os.environ, **environment, **_search_path()},
                pass_fds=descriptors,
            )
            signals.PROGRAMS.add(process)
            code = process.wait()
            signals.PROGRAMS.discard(process)
            if code in UNRELIABLE and (code == GATE_FAILED or (here / job.result).is_file()):
                state = UNRELIABLE[code]
            elif code:
                return Outcome("failed", f"exit code {code}: {_last_line(here / LOG)}")
    seconds = round(time.monotonic() - begun, 2)
    write_text(here / STAMP, json.dumps({**stamp, "state": state, "seconds": seconds}, indent=1) + "\n")
    return Outcome(state, seconds=seconds)


def hold(lock: BinaryIO) -> tuple[int, ...]:
    """Wait until no command that was started before is at work on the run; the file descriptors to hand to one's own.

    A command holds the lock for as long as it lives, also after its parent has ended.
    """
    try:
        import fcntl
    except ImportError:  # not on this system
        return ()
    fcntl.flock(lock, fcntl.LOCK_EX)
    return (lock.fileno(),)


def _search_path() -> dict[str, str]:
    """Programs find the packages of this checkout, be it installed or not."""
    given = os.environ.get("PYTHONPATH")
    return {"PYTHONPATH": os.pathsep.join([str(config.HERE), *([given] if given else [])])}


def _with_checkpoints(part: str, folder: Path) -> str:
    def chosen(found: re.Match[str]) -> str:
        return read_record(folder / found[1] / "results.json", START_AGAIN)["checkpoint"]

    return re.sub(r"\{checkpoint of ([^}]+)\}", chosen, part)


def _last_line(path: Path) -> str:
    lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][-300:] if lines else ""
