"""Optional packages: imported where they are needed; a missing one is a single line that names what to install."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from splavu.errors import UserError


def require(module: str, *, extra: str, why: str, culprit: object = None) -> ModuleType:
    """Import `module`, which the extra `extra` of this package installs.

    Args:
        module: Dotted name.
        extra: As in `pip install "splavu[extra]"`.
        why: What for, as the end of a sentence: 'figures are drawn with it'.
        culprit: What the error blames; the missing package by default.

    Raises:
        UserError: The package is not installed, or it is but can't be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise _missing(module, extra, why, culprit, broken=error if is_installed(module) else None) from error


def check(module: str, *, extra: str, why: str, culprit: object = None) -> None:
    """As `require`, without the import: for commands that need the package only after hours of work.

    Raises:
        UserError: The package is not installed.
    """
    if not is_installed(module):
        raise _missing(module, extra, why, culprit)


def is_installed(module: str) -> bool:
    """Whether there is such a module; nothing but its parent packages is imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # not even the parent of a dotted name
        return False


def remedy(extra: str) -> str:
    """What to type for `extra`."""
    return f'pip install "splavu[{extra}]"'


def _missing(module: str, extra: str, why: str, culprit: object, broken: ImportError | None = None) -> UserError:
    package = module.partition(".")[0]
    problem = f"can't be imported ({broken})" if broken else "is not installed"
    problem = f"{problem}, and {why}" if culprit is None else f"{package} {problem}, and {why}"
    return UserError(package if culprit is None else culprit, problem, remedy(extra))
