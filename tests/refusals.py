"""How tests check that bad input is refused: by the error's class, its culprit and what it names, not by sentences."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath
from subprocess import CompletedProcess

import pytest

from splavu.errors import UserError

LOGGED = ("INFO ", "WARNING ")  # how the lines of a log begin (`splavu.runtime.cli.start`)


@contextmanager
def refused(
    culprit: object, error: type[Exception] = UserError, *, naming: str | tuple[str, ...] = ()
) -> Iterator[pytest.ExceptionInfo]:
    """The block ends in an `error` that blames `culprit` and says what is wrong.

    Args:
        culprit: The file, key, flag or parameter at fault: the whole culprit, the name of its file, or what stands
            before a ':' and a place in it.
        error: The class; it has culprit, problem and remedy.
        naming: Names, values and numbers that the line holds besides: what was found, or what is offered.
    """
    with pytest.raises(error) as caught:
        yield caught
    assert_blames(caught.value, culprit, naming)


def assert_blames(error: Exception, culprit: object, naming: str | tuple[str, ...] = ()) -> None:
    """`error` names `culprit` as the one at fault, and says in one line what is wrong."""
    assert_culprit(str(error.culprit), culprit, str(error))
    assert error.problem
    assert "\n" not in str(error)
    assert_names(f"{error.problem}; {error.remedy}", naming)


def assert_refuses(done: CompletedProcess[str], culprit: object, naming: str | tuple[str, ...] = ()) -> None:
    """A process left with exit code 2 and the line 'PROGRAM: CULPRIT: ...' beside its log; see `refused`."""
    assert done.returncode == 2, done.stderr
    assert_refusal(done.stderr, culprit, naming)


def assert_refusal(stderr: str, culprit: object, naming: str | tuple[str, ...] = ()) -> None:
    """What a program wrote is, beside its log, the one line 'PROGRAM: CULPRIT: ...'; see `refused`."""
    lines = [line for line in stderr.splitlines() if not line.startswith(LOGGED)]
    assert len(lines) == 1, stderr
    _, found, problem = lines[0].split(": ", maxsplit=2)
    while problem.split(": ")[0] in str(culprit).split(": ")[1:]:  # a place in a file: 'a.json: video_1'
        place, problem = problem.split(": ", maxsplit=1)
        found = f"{found}: {place}"
    assert_culprit(found, culprit, lines[0])
    assert problem
    assert_names(problem, naming)


def assert_culprit(found: str, culprit: object, line: str) -> None:
    """`found` is `culprit`, a file of this name, or a place in one of the two."""
    before = found.split(":")[0]
    assert str(culprit) in {found, PurePath(found).name, before, PurePath(before).name}, (
        f"blames '{found}', not '{culprit}': {line}"
    )


def assert_names(said: str, naming: str | tuple[str, ...]) -> None:
    """`said` holds every name of `naming`."""
    absent = [name for name in ([naming] if isinstance(naming, str) else naming) if name not in said]
    assert not absent, f"doesn't name {absent}: {said}"
