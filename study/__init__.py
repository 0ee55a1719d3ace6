"""This paper's experiments: data sets, what trains and what evaluates, sweep, comparison, tables of the paper.

`from study import config` is the config.py of this checkout, loaded by its path when first asked for: a module of that
name in the user's folder, or in an installed package, is another one.
"""

from __future__ import annotations

import importlib.util
import sys

TYPE_CHECKING = False  # as in typing, which need not be imported for it
if TYPE_CHECKING:
    from types import ModuleType

    import config as config


def __getattr__(name: str) -> ModuleType:
    """`study.config`."""
    if name != "config":
        raise AttributeError(f"module 'study' has no attribute '{name}'")
    from pathlib import Path  # at the head of the file, `python -m study` would take a pathlib.py of the user's folder

    path = Path(__file__).resolve().parents[1] / "config.py"
    found = sys.modules.get("config")
    if found is None or Path(found.__file__ or "").resolve() != path:
        spec = importlib.util.spec_from_file_location("config", path)
        assert spec is not None
        assert spec.loader is not None
        found = sys.modules["config"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found)
    globals()["config"] = found  # so `import config` and `from study import config` give one module
    return found
