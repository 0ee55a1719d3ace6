"""Programs of this project as a user starts them, without the seconds that PyTorch takes to be imported.

A fork of the tests' process forgets every module of the project and imports them again; packages of others it keeps.
Arguments, folder, environment, module path, streams and exit code are those of a process of its own. Where forks aren't
to be trusted (macOS, Windows) it is one. What is tested of a process itself, such as its signals or the time that it
takes to start, needs a real one.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import logging
import multiprocessing.util
import os
import runpy
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def python(
    *arguments: object, cwd: Path, environment: Mapping[str, str], timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """`python SCRIPT ...`, `python -m MODULE ...` or `python -c PROGRAM ...`, until it ends.

    Raises:
        subprocess.TimeoutExpired: It was still running after `timeout` seconds, and is ended.
    """
    argv = list(map(str, arguments))
    if sys.platform != "linux":
        return subprocess.run(
            [sys.executable, *argv], capture_output=True, text=True, timeout=timeout, env=environment, cwd=cwd
        )
    import sklearn.linear_model  # noqa: F401
    import torch.utils.tensorboard  # noqa: F401

    path = _path()
    with tempfile.TemporaryDirectory() as folder:
        streams = [Path(folder, name) for name in ("stdout", "stderr")]
        pid = os.fork()
        if pid == 0:
            _child(argv, path, streams, cwd, environment)
        code = _waited(pid, argv, time.monotonic() + timeout)
        return subprocess.CompletedProcess(argv, code, *(stream.read_text() for stream in streams))


@functools.cache
def _path() -> list[str]:
    """Where a new process looks for modules, but for the folder of its program."""
    program = "import json, sys; print(json.dumps(sys.path))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd="/")
    return json.loads(done.stdout)[1:]


def _waited(pid: int, argv: Sequence[str], until: float) -> int:
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > until:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            raise subprocess.TimeoutExpired(argv, until)
        time.sleep(0.005)


def _child(
    argv: Sequence[str], path: Sequence[str], streams: Sequence[Path], cwd: Path, environment: Mapping[str, str]
) -> None:
    code = 70
    try:
        os.setsid()
        _prepare(path, streams, cwd, environment)
        code = _exit_code(argv)
        threading._shutdown()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    finally:
        os._exit(code)


def _prepare(path: Sequence[str], streams: Sequence[Path], cwd: Path, environment: Mapping[str, str]) -> None:
    # What the tests' process is to tidy up at its end is not this one's.
    atexit._clear()
    weakref.finalize._registry.clear()  # pyright: ignore[reportAttributeAccessIssue]
    weakref.finalize._registered_with_atexit = False  # pyright: ignore[reportAttributeAccessIssue]
    atexit.register(multiprocessing.util._exit_function)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for number, file in enumerate((os.devnull, *streams)):
        opened = os.open(file, os.O_RDONLY if number == 0 else os.O_WRONLY | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, closefd=False)
    sys.stdout, sys.stderr = (os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2))
    sys.path[:] = path
    for name, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or os.devnull)
        # An environment may lie in the repository, as .venv does.
        if file.is_relative_to(REPOSITORY) and not file.is_relative_to(sys.prefix):
            del sys.modules[name]
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, signal.default_int_handler if name == signal.SIGINT else signal.SIG_DFL)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    warnings.resetwarnings()
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    tempfile.tempdir = None
    # A fork has to make PyTorch's pool of threads again, and two threads that do so at once may fail.
    sys.modules["torch"].set_num_threads(1)


def _exit_code(argv: Sequence[str]) -> int:
    """As Python begins and ends a program."""
    first, *rest = argv
    try:
        if first == "-m":
            sys.path.insert(0, str(Path.cwd()))
            sys.argv = rest
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif first == "-c":
            sys.path.insert(0, "")
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.path.insert(0, str(Path(first).resolve().parent))
            sys.argv = [first, *rest]
            runpy.run_path(first, run_name="__main__")
    except SystemExit as left:
        if left.code is None or isinstance(left.code, int):
            return left.code or 0
        print(left.code, file=sys.stderr)
        return 1
    except BaseException:
        traceback.print_exc()
        return 1
    return 0
