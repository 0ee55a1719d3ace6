"""Ctrl-C and SIGTERM end a command in one line, with exit code 130 or 143, within two seconds and with its workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from conftest import REPOSITORY

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

LINES = {signal.SIGINT: (130, "interrupted"), signal.SIGTERM: (143, "terminated")}
WAY_ON = "; run the same command to go on"

START = """
    import hashlib, os, sys, time
    from splavu.runtime import cli, signals
    from splavu.runtime.workers import worker_processes

    def initialize():
        print(os.getpid(), flush=True)

    def wait(seconds):
        time.sleep(seconds)

    def ready():
        print("ready", flush=True)
"""
MAINS = {
    "python": "ready(); time.sleep(60)",
    "kept": "signals.work_is_kept(); ready(); time.sleep(60)",
    "one long call": "ready(); hashlib.pbkdf2_hmac('sha256', b'', b'', 10 ** 9)",
    "swallowed": """
        while True:
            try:
                ready(); time.sleep(60)
            except BaseException:
                pass
    """,
    "turned into another error": """
        try:
            ready(); time.sleep(60)
        except BaseException:
            raise ValueError("half a line") from None
    """,
    "workers": """
        with worker_processes(2, initialize) as pool:
            futures = [pool.submit(wait, 60) for _ in range(5)]
            time.sleep(60)
    """,
    "at the import": "signals.leave_at_once(); ready(); time.sleep(60)",
}


def started(tmp_path, main):
    body = textwrap.indent(textwrap.dedent(MAINS[main]).strip(), "    ")
    program = f"{textwrap.dedent(START)}\ndef main(argv):\n{body}\n\nif __name__ == '__main__':\n"
    program += "    main(None)\n" if main == "at the import" else "    cli.run(main)\n"
    path = tmp_path / "program.py"
    path.write_text(program)
    return subprocess.Popen(
        [sys.executable, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip


def lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("to", [os.kill, os.killpg], ids=["the command", "all its processes, as a terminal does"])
@pytest.mark.parametrize("number", LINES, ids=["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("main", MAINS)
def test_ends_in_one_line(tmp_path, main, number, to):
    with started(tmp_path, main) as process:
        workers = [int(process.stdout.readline()) for _ in range(2)] if main == "workers" else []
        if not workers:
            assert process.stdout.readline() == "ready\n"
        began = time.monotonic()
        to(process.pid, number)
        out, err = process.communicate(timeout=20)
    code, line = LINES[number]
    assert (process.returncode, err) == (code, f"{line}{WAY_ON if main == 'kept' else ''}\n")
    assert time.monotonic() - began < 2
    assert "half" not in out
    while any(map(lives, workers)):
        assert time.monotonic() - began < 2
        time.sleep(0.05)


def test_a_command_that_is_done_keeps_its_exit_code(tmp_path):
    """While Python itself ends, which takes a while with large libraries."""
    program = f"{textwrap.dedent(START)}\nclass Late:\n    def __del__(self):\n        ready_late()\n"
    program += "def ready_late(write=os.write, sleep=time.sleep):\n    write(1, b'late\\n'); sleep(0.5)\n"
    program += "sys.late = Late()\ncli.run(lambda argv: 3)\n"
    (tmp_path / "program.py").write_text(program)
    with subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    ) as process:  # fmt: skip
        assert process.stdout.readline() == "late\n"
        process.terminate()
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (3, "")


def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    with started(tmp_path, "workers") as process:
        workers = [int(process.stdout.readline()) for _ in range(2)]
        process.kill()
        process.wait()
    began = time.monotonic()
    while any(map(lives, workers)):
        assert time.monotonic() - began < 5
        time.sleep(0.05)


def test_scripts_obey_before_their_imports():
    """Every entry point asks for it first: the test of one command at random moments would find it by luck alone."""
    entries = [
        path
        for pattern in ("*.py", "*/*.py", "splavu/**/*.py")
        for path in REPOSITORY.glob(pattern)
        if '__name__ == "__main__"' in path.read_text() and path.parts[-2] not in ("tests", "docs")
    ]
    assert len(entries) > 30
    for path in entries:
        asked, first = (path.read_text().find(text) for text in ("leave_at_once()", "\nimport "))
        assert asked >= 0, path
        if path.name != "__main__.py":  # which mends the path of imports before
            assert first == -1 or asked < first, path
