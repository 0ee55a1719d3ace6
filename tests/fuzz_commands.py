"""Random valid and invalid inputs to every command: `python tests/fuzz_commands.py --cases 10000 --seed 0`.

A case is a folder of small inputs and a command line (`fuzz_cases`). One property must hold for each:

    it ends within 30 seconds, with exit code 0 and a right result, or with 2 and one line that says what is wrong
    (1: failures that are listed, 3: gates that failed, 4: undecided, where the command has these);
    no traceback, no control character on the terminal;
    every input is as it was, and nothing is written outside the output;
    no process is left.

"Right" is an oracle where one is cheap (`fuzz_cases`), such as NumPy's result for PCA; input that is known to be valid
must not be refused, and input that is known to be invalid must be.

A case runs in a fork of a process that has imported everything; `--real N` of them are processes of their own, as a
user starts them. Started as root, the fuzzer becomes the user nobody first (Linux: it keeps the right to read files, as
Python may lie in root's folder): aimed at a device, a writer with root's rights could replace it.

    python tests/fuzz_commands.py --only fit --case 17 --seed 0 --keep /tmp/case     # one case again, in a folder
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import dataclasses
import gc
import hashlib
import json
import multiprocessing.util
import os
import re
import resource
import runpy
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

REPOSITORY = Path(__file__).resolve().parents[1]
LIMIT = 30.0
"""Seconds a command may take."""
GRACE = 2.0
"""Seconds in which the processes that it started must be gone after it."""
MEMORY = 12 * 2**30
"""Bytes of address space of a case, most of it PyTorch's libraries: the fuzzer must survive what it finds."""
LARGEST_FILE = 2**28
"""Bytes that a case may write to one file."""
LOGGED = ("INFO ", "WARNING ")
CONTROL = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")
NOBODY = "65534"
PR_SET_CHILD_SUBREAPER = 36


@dataclasses.dataclass(frozen=True)
class Finding:
    """A case that broke the property."""

    command: str
    index: int
    kind: str
    """Such as 'traceback'; see `judged`."""
    detail: str
    case: str
    """What was special about the input."""
    line: str
    """The command line."""

    @property
    def signature(self) -> tuple[str, str, str]:
        """Equal for findings that are likely one fault."""
        return self.command, self.kind, re.sub(r"[0-9]+|'[^']*'|/\S+", "_", self.detail.splitlines()[-1])[:160]


@dataclasses.dataclass(frozen=True)
class Result:
    """What a command did."""

    code: int | None
    """Exit code, negative for a signal; None: it was still running at the limit."""
    stdout: bytes
    stderr: bytes
    seconds: float
    left: tuple[str, ...] = ()
    """Command lines of processes that outlived it."""


def as_nobody() -> None:
    """Run this program again as a user without rights, if it is root's."""
    if os.getuid() == 0:
        keeps = ["--inh-caps=-all,+dac_read_search", "--ambient-caps=+dac_read_search"]
        user = [f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", *keeps]
        os.execvp("setpriv", ["setpriv", *user, sys.executable, *sys.argv])


def forked(
    work: Callable[[], int | None], folder: Path, cwd: Path, environment: dict[str, str], limit: float
) -> Result:
    """Run `work` in a fork with the rights, folders and streams of a case."""
    streams = [folder / name for name in ("stdout", "stderr")]
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            _prepare(streams, cwd, environment)
            code = _exit_code(work)
            threading._shutdown()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return _finished(pid, streams, started, limit)


def real(argv: Sequence[str], folder: Path, cwd: Path, environment: dict[str, str], limit: float) -> Result:
    """Run a program as a user does, in the same surroundings."""
    streams = [folder / name for name in ("stdout", "stderr")]
    started = time.monotonic()
    with streams[0].open("wb") as out, streams[1].open("wb") as err:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=cwd, env=environment, start_new_session=True,
            preexec_fn=_limit_resources,
        )  # fmt: skip
    result = _finished(process.pid, streams, started, limit)
    process.returncode = 0  # it was waited for
    return result


def _prepare(streams: Sequence[Path], cwd: Path, environment: dict[str, str]) -> None:
    # What this program is to tidy up at its end is not the case's: only what that registers, and its processes.
    atexit._clear()
    weakref.finalize._registry.clear()  # pyright: ignore[reportAttributeAccessIssue]
    weakref.finalize._registered_with_atexit = False  # pyright: ignore[reportAttributeAccessIssue]
    atexit.register(multiprocessing.util._exit_function)
    _limit_resources()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for number, path in enumerate(streams, start=1):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(file, number)
        os.close(file)
    # As with a pipe: of this process's streams nothing must be left in a buffer.
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="strict", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
    tempfile.tempdir = None
    if torch := sys.modules.get("torch"):
        # A fork has to make PyTorch's pool of threads again, and two threads that do so at once may fail.
        torch.set_num_threads(1)


def _limit_resources() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (LARGEST_FILE, LARGEST_FILE))


def _exit_code(work: Callable[[], int | None]) -> int:
    """As Python ends a program."""
    try:
        return work() or 0
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1


def _finished(pid: int, streams: Sequence[Path], started: float, limit: float) -> Result:
    code, pause = None, 0.001
    while time.monotonic() - started < limit:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code = os.waitstatus_to_exitcode(status)
            break
        time.sleep(pause)
        pause = min(0.01, 1.2 * pause)
    seconds = time.monotonic() - started
    if code is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return Result(code, *(path.read_bytes() for path in streams), seconds, children_left(GRACE))


def children_left(grace: float) -> tuple[str, ...]:
    """Wait for the orphans, which are ours (`PR_SET_CHILD_SUBREAPER`), and end those that stay longer than `grace`."""
    until, left = time.monotonic() + grace, []
    while True:
        try:
            done, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return tuple(left)
        if not done and time.monotonic() > until:
            for pid in _children():
                with contextlib.suppress(OSError):
                    left.append(
                        Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                    )
                    os.kill(pid, signal.SIGKILL)
        if not done:
            time.sleep(0.01)


def _children() -> list[int]:
    return [int(pid) for task in Path("/proc/self/task").iterdir() for pid in (task / "children").read_text().split()]


def below(root: Path) -> Iterator[Path]:
    """All files and folders below `root`, by whatever names; links aren't followed."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name)


def snapshot(root: Path) -> dict[str, tuple[object, ...]]:
    """Relative path -> what lies there: kind and content. Pipes and devices aren't opened."""
    found: dict[str, tuple[object, ...]] = {}
    for path in below(root):
        status = path.lstat()
        kind: tuple[object, ...] = (stat.S_IFMT(status.st_mode),)
        if stat.S_ISLNK(status.st_mode):
            kind += (path.readlink(),)
        elif stat.S_ISREG(status.st_mode):
            kind += (_hash(path, status.st_size),)
        found[str(path.relative_to(root))] = kind
    return found


def _hash(path: Path, size: int) -> str:
    if size > LARGEST_FILE:
        return f"{size} bytes"  # of holes, as a bomb is
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def judged(case: Any, result: Result, before: dict, after: dict, codes: Iterable[int]) -> tuple[str, str] | None:
    """The first part of the property that doesn't hold, as (kind, detail)."""
    text = result.stderr.decode("utf-8", "backslashreplace")
    if result.code is None:
        return "hang", f"silent after {result.seconds:.0f} s"
    if "Traceback (most recent call last)" in text:
        return "traceback", text.strip()[-900:]
    if result.code < 0:
        return "crash", f"signal {-result.code}"
    changed = [path for path in before if after.get(path) != before[path] and not case.may_write(path)]
    if changed:
        return "changed input", repr(changed[:5])
    if foreign := [path for path in after if path not in before and not case.may_write(path)]:
        return "file outside", repr(foreign[:5])
    if result.left:
        return "process left", "; ".join(result.left)
    if result.code not in (0, 2, *codes):
        return "exit code", f"{result.code}: {text[-300:].strip()}"
    if found := CONTROL.search(result.stdout + result.stderr):
        return "control character", f"{found[0]!r} in the output"
    lines = [line for line in text.splitlines() if not line.startswith(LOGGED)]
    if result.code == 2 and len(lines) != 1:
        return "not one line", f"{len(lines)} lines: {text[:1500]}" if lines else "exit 2 without a line"
    if case.expect == "success" and result.code == 2:
        return "good input refused", lines[0][:500]
    if case.expect == "refusal" and result.code == 0:
        return "bad input accepted", (result.stdout + result.stderr).decode("utf-8", "replace")[-300:].strip()
    if result.code == 2 and (half := [p for p in after if p not in before and case.is_output(p)]):
        return "half written", repr(half[:5])
    return None


class Fuzzer:
    """Builds, runs and judges cases in a folder of its own.

    Args:
        seed: Of all cases.
        folder: For the inputs; one case's are removed before the next.
    """

    def __init__(self, seed: int, folder: Path, *, limit: float = LIMIT) -> None:
        from fuzz_cases import COMMANDS

        self.seed, self.folder, self.limit, self.commands = seed, folder, limit, COMMANDS
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def environment(self, root: Path) -> dict[str, str]:
        """The variables of a case's processes."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL", "LD_LIBRARY_PATH") if name in os.environ}
        places = {"HOME": "home", "TMPDIR": "tmp", "XDG_CACHE_HOME": "home/.cache"}
        study = {"SPLAVU_DATA": "data", "SPLAVU_FEATURES": "features", "SPLAVU_RUNS": "runs"}
        return {
            **kept,
            **{name: str(root / place) for name, place in places.items()},
            **{name: str(root / "a/b/work" / place) for name, place in study.items()},
            "MPLCONFIGDIR": str(self.folder.parent / "matplotlib"),
            "MPLBACKEND": "agg",
            "TORCHINDUCTOR_CACHE_DIR": str(root / "home/inductor"),
            "OMP_NUM_THREADS": "1",
            "TQDM_DISABLE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(REPOSITORY),
        }

    def case(self, name: str, index: int) -> tuple[Any, Path]:
        """Build a case; its root."""
        root = self.folder / "case"
        _remove(root)
        work = root / "a/b/work"  # deep enough for `../../..` to stay within
        for folder in (work, root / "home", root / "tmp", root / "outside"):
            folder.mkdir(parents=True)
        (root / "outside/precious.txt").write_text("not to be touched\n")
        signal.alarm(60)  # ends a fuzzer that waits for its own inputs, and says where
        try:
            return self.commands[name].case(f"{self.seed}:{name}:{index}", work), root
        finally:
            signal.alarm(0)

    def run(self, name: str, index: int, *, as_process: bool = False) -> tuple[Finding | None, Result]:
        """One case."""
        command = self.commands[name]
        case, root = self.case(name, index)
        environment, before = self.environment(root), snapshot(root)
        work, streams = root / "a/b/work", self.folder
        if as_process:
            result = real([*command.program, *case.argv], streams, work, environment, self.limit)
        else:
            result = forked(lambda: _run_script(command, case.argv), streams, work, environment, self.limit)
        _unlock(root)
        after = snapshot(root)
        broken = judged(case, result, before, after, command.codes)
        if broken is None and case.oracle is not None and result.code != 2:
            checked = forked(lambda: _check(case, result), streams, work, environment, self.limit)
            if checked.code:
                broken = "wrong result", checked.stderr.decode("utf-8", "replace")[-1500:].strip() or "the oracle died"
        line = " ".join([name, *(repr(part) if re.search(r"[^\w./=:,+-]", part) else part for part in case.argv)])
        finding = None if broken is None else Finding(name, index, *broken, case.about, line)
        return finding, result


def _run_script(command: Any, argv: Sequence[str]) -> int | None:
    """What Python does with a script, but for the imports, which are there."""
    import config

    for name, variable in (("DATA", "SPLAVU_DATA"), ("FEATURES", "SPLAVU_FEATURES"), ("RUNS", "SPLAVU_RUNS")):
        setattr(config, name, Path(os.environ[variable]))
    sys.argv = [command.script, *argv] if command.command is None else [command.script, command.command, *argv]
    if command.command is not None and command.script == "splavu":
        from splavu.__main__ import entry

        entry()
    sys.path.insert(0, str(Path(command.script).parent))
    runpy.run_path(command.script, run_name="__main__")
    return 0


def _check(case: Any, result: Result) -> int:
    try:
        case.oracle(result)
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def _unlock(root: Path) -> None:
    """Give folders and files back the rights that a case took."""
    for path in below(root):
        mode = path.lstat().st_mode
        if stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and not mode & stat.S_IRUSR):
            path.chmod(0o700)


def _remove(root: Path) -> None:
    if root.is_dir():
        _unlock(root)
        shutil.rmtree(root)


def plan(commands: Sequence[str], cases: int) -> list[tuple[str, int]]:
    """`cases` cases, as many of each command (one more of the first)."""
    return [(commands[number % len(commands)], number // len(commands)) for number in range(cases)]


def _work(share: Sequence[tuple[str, int, bool]], fuzzer: Fuzzer, output: Path, deadline: float | None) -> None:
    """A worker: its cases, and a line of JSON for each."""
    fuzzer.folder.mkdir()
    with output.open("w", buffering=1) as file:
        for name, index, as_process in share:
            if deadline is not None and time.monotonic() > deadline:
                break
            try:
                finding, result = fuzzer.run(name, index, as_process=as_process)
            except Exception:
                finding = Finding(name, index, "the fuzzer's own", traceback.format_exc(), "", "")
                result = Result(70, b"", b"", 0)
            record = {
                "command": name, "index": index, "real": as_process, "code": result.code, "seconds": result.seconds,
                "finding": None if finding is None else dataclasses.asdict(finding),
            }  # fmt: skip
            file.write(json.dumps(record) + "\n")


def campaign(
    cases: Sequence[tuple[str, int, bool]],
    *,
    seed: int,
    workers: int,
    limit: float = LIMIT,
    seconds: float | None = None,
) -> list[dict]:
    """Run the cases in `workers` forks; a record of each."""
    deadline = None if seconds is None else time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="fuzz-", ignore_cleanup_errors=True) as scratch:
        folder = Path(scratch)
        (folder / "matplotlib").mkdir()
        fuzzer_pids = []
        gc.collect()
        gc.freeze()
        for number in range(workers):
            sys.stdout.flush()
            if (pid := os.fork()) == 0:
                try:
                    fuzzer = Fuzzer(seed, folder / str(number), limit=limit)
                    _work(cases[number::workers], fuzzer, folder / f"{number}.jsonl", deadline)
                except BaseException:
                    traceback.print_exc()
                finally:
                    os._exit(0)
            fuzzer_pids.append(pid)
        for pid in fuzzer_pids:
            os.waitpid(pid, 0)
        lines = [line for number in range(workers) for line in (folder / f"{number}.jsonl").read_text().splitlines()]
    return sorted(map(json.loads, lines), key=lambda record: (record["index"], record["command"]))


def table(records: Sequence[dict]) -> str:
    """Figures by command."""
    rows = [
        "| command | cases | as processes | done | listed | refused | other | findings | slowest |",
        "|---" * 9 + "|",
    ]
    by_command = defaultdict(list)
    for record in records:
        by_command[record["command"]].append(record)
    for name, of in [*by_command.items(), ("all", records)]:
        codes = Counter(record["code"] for record in of)
        others = sum(count for code, count in codes.items() if code not in (0, 1, 2))
        findings = sum(record["finding"] is not None for record in of)
        slowest = max((record["seconds"] for record in of), default=0)
        real_ones = sum(record["real"] for record in of)
        rows.append(
            f"| {name} | {len(of)} | {real_ones} | {codes[0]} | {codes[1]} | {codes[2]} | {others} | {findings} "
            f"| {slowest:.1f} s |"
        )
    return "\n".join(rows)


def overview(records: Sequence[dict], *, most: int = 2) -> str:
    """The findings, likely equal ones together."""
    groups = defaultdict(list)
    for record in records:
        if record["finding"] is not None:
            finding = Finding(**record["finding"])
            groups[finding.signature].append(finding)
    parts = []
    for (command, kind, _), found in sorted(groups.items(), key=lambda item: (item[0][1], item[0][0])):
        parts.append(f"## {kind}: {command} ({len(found)} cases: {', '.join(str(f.index) for f in found[:8])})")
        for finding in found[:most]:
            parts.append(f"case {finding.index}: {finding.case}\n$ {finding.line}\n{finding.detail}\n")
    return "\n".join(parts)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", metavar="COMMAND", help="default: all")
    parser.add_argument("--real", type=int, default=0, help="of them, processes of their own")
    parser.add_argument("--first", type=int, default=0, help="index of each command's first case")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--limit", type=float, default=LIMIT, help="seconds a case")
    parser.add_argument("--seconds", type=float, help="begin no case after this time")
    parser.add_argument("--case", type=int, help="run this case of --only, show what it says, leave its files")
    parser.add_argument("--keep", type=Path, help="with --case: folder for the files")
    parser.add_argument("--faults", nargs="+", default=[], help="faults to put back (fuzz_faults.py)")
    parser.add_argument("--records", type=Path, help="write a line of JSON a case")
    args = parser.parse_args(argv)
    as_nobody()
    if args.records:
        args.records.touch()  # what can't be written is found before the work
    from fuzz_cases import COMMANDS, prepare

    names = args.only or list(COMMANDS)
    with tempfile.TemporaryDirectory(prefix="fuzz-worlds-", ignore_cleanup_errors=True) as worlds:
        prepare(Path(worlds), names)
        if args.faults:
            from fuzz_faults import put_back

            put_back(args.faults)
        if args.case is not None:
            return _show(names[0], args)
        planned = [(name, args.first + index) for name, index in plan(names, args.cases)]
        step = max(1, len(planned) // args.real) if args.real else 0
        chosen = set(list(range(0, len(planned), step))[: args.real]) if step else set()
        cases = [(name, index, number in chosen) for number, (name, index) in enumerate(planned)]
        started = time.monotonic()
        records = campaign(cases, seed=args.seed, workers=args.workers, limit=args.limit, seconds=args.seconds)
        taken = time.monotonic() - started
    print(overview(records))
    print(table(records))
    print(f"seed {args.seed}, {len(records)} cases in {taken:.0f} s")
    if args.records:
        args.records.write_text("".join(json.dumps(record) + "\n" for record in records))
    return 1 if any(record["finding"] for record in records) else 0


def _show(name: str, args: argparse.Namespace) -> int:
    folder = args.keep or Path(tempfile.mkdtemp(prefix="fuzz-case-"))
    folder.mkdir(parents=True, exist_ok=True)
    fuzzer = Fuzzer(args.seed, folder, limit=args.limit)
    finding, result = fuzzer.run(name, args.case, as_process=bool(args.real))
    print(f"{folder}\nexit code {result.code} after {result.seconds:.2f} s\n--- stdout")
    print(result.stdout.decode("utf-8", "backslashreplace"), "--- stderr", sep="\n")
    print(result.stderr.decode("utf-8", "backslashreplace"), "--- finding", sep="\n")
    print("none" if finding is None else f"{finding.case}\n$ {finding.line}\n{finding.kind}: {finding.detail}")
    return finding is not None


if __name__ == "__main__":
    sys.exit(main())
