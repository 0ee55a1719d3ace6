"""The fuzzer of commands notices every way to break its property, and finds none in the commands."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

if sys.platform != "linux":
    pytest.skip("orphans are found by a call of Linux", allow_module_level=True)

import fuzz_cases
import fuzz_commands

GOOD = 'open("out.txt", "w").write(open("in.txt").read().upper())'
BEHAVIOUR = {
    "good": GOOD,
    "refuses": 'import sys; sys.exit(print("x: in.txt: is odd", file=sys.stderr) or 2)',
    "traceback": "1 / 0",
    "hang": "while True: pass",
    "crash": "import os; os.kill(os.getpid(), 9)",
    "changed input": 'open("in.txt", "a").write("more")',
    "file outside": f'{GOOD}; open("../stray", "w")',
    "process left": f'{GOOD}; import subprocess; subprocess.Popen(["sleep", "60"])',
    "exit code": "import sys; sys.exit(1)",
    "control character": f'{GOOD}; print("\\x1b[31m")',
    "not one line": 'import sys; sys.exit(print("one\\ntwo", file=sys.stderr) or 2)',
    "half written": f'{GOOD}; import sys; sys.exit(print("x: y: z", file=sys.stderr) or 2)',
    "wrong result": 'open("out.txt", "w").write("something else")',
}
"""What is to be found -> a script that does it; the first two are right."""


def found(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str, expect: str) -> str | None:
    """What the fuzzer says of a script that is to write its input in capitals."""
    (folder / "script.py").write_text(script)

    def build(rng: random.Random, work: Path) -> fuzz_cases.Made:
        (work / "in.txt").write_text("text")

        def oracle(result: fuzz_commands.Result) -> None:
            assert (work / "out.txt").read_text() == "TEXT"

        return fuzz_cases.Made([], [], "out.txt", [], oracle, expect=expect)

    command = fuzz_cases.Command("made up", str(folder / "script.py"), build, share_valid=1.0)
    monkeypatch.setattr(fuzz_cases, "COMMANDS", {"made up": command})
    (record,) = fuzz_commands.campaign([("made up", 0, False)], seed=0, workers=1, limit=2)
    return record["finding"] and record["finding"]["kind"]


@pytest.mark.parametrize("kind", BEHAVIOUR)
def test_every_way_to_break_the_property_is_found(monkeypatch, tmp_path, kind):
    is_right = kind in ("good", "refuses")
    expect = fuzz_cases.GOOD if kind == "good" else fuzz_cases.EITHER
    assert found(monkeypatch, tmp_path, BEHAVIOUR[kind], expect) == (None if is_right else kind)


def test_what_is_known_of_the_input_has_to_be_seen(monkeypatch, tmp_path):
    assert found(monkeypatch, tmp_path, GOOD, fuzz_cases.BAD) == "bad input accepted"
    assert found(monkeypatch, tmp_path, BEHAVIOUR["refuses"], fuzz_cases.GOOD) == "good input refused"


def test_a_case_repeats_with_its_seed(tmp_path):
    """Input files, command line and what must follow; another seed gives others."""
    drawn = []
    for place, seed in (("a", 0), ("b", 0), ("c", 1)):
        work = tmp_path / place / "x/y/z"
        for folder in (work, tmp_path / place / "outside"):
            folder.mkdir(parents=True)
        case = fuzz_cases.COMMANDS["rename-keys"].case(f"{seed}:rename-keys:3", work)
        drawn.append((case.argv, case.about, case.expect, fuzz_commands.snapshot(work)))
    assert drawn[0] == drawn[1] != drawn[2]


def test_all_commands_get_their_share():
    """At least 200 cases a command in a campaign of 10,000, and every script of the study is there."""
    planned = fuzz_commands.plan(list(fuzz_cases.COMMANDS), 10_000)
    counts = {name: sum(name == command for command, _ in planned) for name in fuzz_cases.COMMANDS}
    assert min(counts.values()) >= 200
    from splavu.__main__ import COMMANDS, STUDY_COMMANDS

    assert {*COMMANDS, *STUDY_COMMANDS} <= set(fuzz_cases.COMMANDS)
    tracked = subprocess.run(
        ["git", "grep", "-l", "__main__", "--", "*.py"], cwd=fuzz_cases.REPOSITORY, capture_output=True, text=True
    ).stdout.split()
    scripts = {c.script.removeprefix(f"{fuzz_cases.REPOSITORY}/") for c in fuzz_cases.COMMANDS.values()}
    own = {"feature_extraction/ray_shards.py", "feature_extraction/feature_extraction_crime-thumos.py"}
    # The first needs Ray, the second is another name of long_videos.py.
    others = ("benchmarks/", "docs/", "tests/", "splavu/")
    assert {path for path in tracked if not path.startswith(others)} - own <= scripts or not tracked
