"""Writes docs/api.md: every public name of the library with its signature and the first paragraph of its docstring.

python docs/build_api.py
"""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from pathlib import Path
from types import ModuleType

PACKAGES = (
    "splavu",
    "splavu.stores",
    "splavu.metrics",
    "splavu.attackers",
    "splavu.anonymizers",
    "splavu.release",
)
PAGE = Path(__file__).with_name("api.md")
HEAD = """# Python API

The public names of the library, with types. Written by `python docs/build_api.py` from the code. Shapes use the
letters of each package: `B` independent features, `T` time steps of a sequence, `K` clips of a video, `N` rows, `A`
attributes, `D` feature width. Errors in input are `splavu.errors.UserError` with `culprit`, `problem` and `remedy`.
Everything else may change without notice.
"""


def page() -> str:
    """The text of docs/api.md."""
    return "\n".join([HEAD, *(text for name in PACKAGES for text in _package(importlib.import_module(name)))])


def _package(package: ModuleType) -> list[str]:
    names = [name for name in package.__all__ if not name.startswith("__")]
    return [
        f"## {package.__name__}\n",
        _first_paragraph(package.__doc__) + "\n",
        *(_entry(package, name) for name in sorted(names, key=str.casefold)),
    ]


def _entry(package: ModuleType, name: str) -> str:
    thing = getattr(package, name)
    is_ours = getattr(thing, "__module__", "").startswith("splavu")
    if is_ours and inspect.isclass(thing):
        methods = [
            f"- `{_signature(method, member)}`: {_first_paragraph(inspect.getdoc(member), lines=1)}"
            for method, member in vars(thing).items()
            if inspect.isfunction(member) and not method.startswith("_") and inspect.getdoc(member)
        ]
        return "\n".join([f"### {name}\n", f"`class {_signature(name, thing)}`\n", _paragraph(thing), *methods, ""])
    if is_ours and callable(thing):
        return f"### {name}\n\n`{_signature(name, thing)}`\n\n{_paragraph(thing)}"
    return f"### {name}\n\n`{name}: {type(thing).__name__}`\n\n{_constant(package, name)}\n"


def _signature(name: str, thing: object) -> str:
    """As in the source, on one line; without `self`."""
    try:
        text = str(inspect.signature(thing))  # pyright: ignore[reportArgumentType]
    except (TypeError, ValueError):
        return name
    text = text.replace("(self, ", "(").replace("(self)", "()").replace("'", "").replace(" -> None", "")
    return f"{name}{text}"


def _paragraph(thing: object) -> str:
    return _first_paragraph(inspect.getdoc(thing)) + "\n"


def _first_paragraph(text: str | None, *, lines: int = 100) -> str:
    paragraph = " ".join((inspect.cleandoc(text or "").split("\n\n")[0]).splitlines()[:lines])
    return "\n".join(textwrap.wrap(paragraph, 130)) if lines > 1 else paragraph


def _constant(package: ModuleType, name: str) -> str:
    """The string below an assignment, in the module that assigns the name."""
    tree = ast.parse(inspect.getsource(package))
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and any(alias.name == name for alias in node.names):
            return _constant(importlib.import_module(node.module or ""), name)
    for node, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        is_assigned = any(name in {n.id for n in ast.walk(t) if isinstance(n, ast.Name)} for t in targets if t)
        is_described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
        if is_assigned and is_described:
            return _first_paragraph(str(after.value.value))
    return ""


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
