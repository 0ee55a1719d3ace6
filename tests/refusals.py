"""How tests check that bad input is refused: by the error's class and its culprit, never by its sentence."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

import pytest

from splavu.errors import UserError


@contextmanager
def refused(culprit: object, error: type[Exception] = UserError) -> Iterator[pytest.ExceptionInfo]:
    """The block ends in an `error` that blames `culprit` and says what is wrong.

    Args:
        culprit: The file, key, flag or parameter at fault: the whole culprit, the name of its file, or what stands
            before a ':' and a place in it.
        error: The class; it has culprit, problem and remedy.
    """
    with pytest.raises(error) as caught:
        yield caught
    assert_blames(caught.value, culprit)


def assert_blames(error: Exception, culprit: object) -> None:
    """`error` names `culprit` as the one at fault, and says in one line what is wrong."""
    found = str(error.culprit)
    assert str(culprit) in {found, PurePath(found).name, found.split(":")[0], PurePath(found.split(":")[0]).name}, (
        f"blames '{found}', not '{culprit}': {error}"
    )
    assert error.problem
    assert "\n" not in str(error)
