"""Decisions about the structure that are worth keeping: who may import whom, and what an import may do."""

from __future__ import annotations

import ast
import functools
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from conftest import REPOSITORY

PACKAGES = (
    "splavu._version", "splavu.errors", "splavu.runtime", "splavu.stores", "splavu.metrics", "splavu.data",
    "splavu.attackers", "splavu.anonymizers", "splavu.extraction", "splavu.synthetic", "splavu.training",
    "splavu.release", "splavu.reports", "splavu.attacks", "splavu.audit", "splavu.tuning", "splavu.protect",
    "splavu.commands",
    "splavu.api", "splavu", "splavu.__main__",
    "mgfn", "tridet",
    "config", "study", "feature_dl", "model_loaders",
)  # fmt: skip
"""Bottom to top: a package imports from itself and from what stands before it. Scripts stand above all of them."""

SCRIPTS = ("vp", "bias", "pahmdb", "gait", "feature_extraction")
"""Folders of scripts: each imports from the packages and from its own folder, and nobody imports it."""

SCRIPT_MODULES = ("multitask_train_fa", "pretrain_fa", "train_ft", "privacy_eval")
LEVEL = {name: level for level, name in enumerate(PACKAGES)}
JOINTS = {
    "tridet": {"config", "cli", "anonymize", "task", "learner", "train", "from_video", "checkpoints"},
    "mgfn": {"command_line", "anonymize", "task", "train", "main", "runs", "label_list"},
}
"""Folders that a person may copy into another project, and the modules by which they join this one."""


def sources() -> list[Path]:
    """Every Python file outside tests and benchmarks."""
    folders = ("splavu", "study", "tridet", "mgfn", *SCRIPTS)
    return sorted([*REPOSITORY.glob("*.py"), *(path for name in folders for path in (REPOSITORY / name).rglob("*.py"))])


def dotted(path: Path) -> str:
    """The module's full name; a package by its own."""
    return ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path, *, at_once: bool = False) -> Iterator[str]:
    """Dotted names of every module or name that `path` imports; `at_once` leaves out what functions import later."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import hides which room it reaches into"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@functools.cache
def graph() -> dict[str, set[str]]:
    """Module -> the project's modules that it imports, wherever in the file."""
    names = {dotted(path): path for path in sources()}

    def module_of(name: str) -> str | None:
        while name and name not in names:
            name = name.rpartition(".")[0]
        return name or None

    found = {name: {module_of(other) for other in imported(path)} - {None, name} for name, path in names.items()}
    return found


def package_of(name: str) -> str | None:
    """The package of PACKAGES that a module belongs to."""
    while name and name not in LEVEL:
        name = name.rpartition(".")[0]
    return name or None


def test_no_file_is_part_of_a_circle():
    try:
        TopologicalSorter(graph()).prepare()
    except CycleError as error:
        pytest.fail("imports run in a circle: " + " -> ".join(error.args[1]))


@pytest.mark.parametrize("name", sorted(graph()))
def test_imports_point_down(name):
    top = name.split(".")[0]
    for other in graph()[name]:
        if other.split(".")[0] in SCRIPTS + SCRIPT_MODULES:
            assert other.startswith(f"{top}."), f"{name} imports the script {other}"
        elif top not in SCRIPTS + SCRIPT_MODULES:
            here, there = package_of(name), package_of(other)
            assert None not in (here, there), f"{name if here is None else other} has no room: add it to PACKAGES"
            assert LEVEL[there] <= LEVEL[here], f"{name} imports upwards: {other}"


def test_the_detectors_do_not_know_each_other():
    for name, others in graph().items():
        for one, other in (("tridet", "mgfn"), ("mgfn", "tridet")):
            assert not (name.startswith(one) and any(module.startswith(other) for module in others)), name


def test_loose_modules_are_few():
    assert {path.name for path in REPOSITORY.glob("*.py")} == {
        "config.py", "feature_dl.py", "model_loaders.py", *(f"{name}.py" for name in SCRIPT_MODULES)
    }  # fmt: skip
    assert {path.stem for path in (REPOSITORY / "splavu").glob("*.py")} <= {
        "__init__", "__main__", "_version", "api", "errors"
    }  # fmt: skip


def test_only_stores_opens_a_store():
    offenders = {dotted(path) for path in sources() if "h5py" in {name.split(".")[0] for name in imported(path)}}
    assert offenders
    assert {name.rpartition(".")[0] for name in offenders} == {"splavu.stores"}


@pytest.mark.parametrize("core", JOINTS)
def test_a_core_stands_alone(core):
    """A person may copy the folder into another project."""
    own = {name.split(".")[0] for name in graph()} - {core}
    modules = [path for path in (REPOSITORY / core).rglob("*.py") if path.stem not in JOINTS[core]]
    assert len(modules) > 10
    for path in modules:
        roots = {name.split(".")[0] for name in imported(path, at_once=True)}
        assert not roots & own, f"{path.name} imports {sorted(roots & own)}"


def test_importing_does_nothing_and_needs_no_optional_package():
    """Every module but the entry points of packages, in a fresh process with the optional packages out of reach."""
    modules = [
        name
        for name in graph()
        if not name.endswith("__main__") and not name.startswith(("splavu.synthetic", "splavu.extraction"))
        and not name.startswith(("tridet", "mgfn", "feature_extraction"))
    ]  # fmt: skip
    assert len(modules) > 150
    program = f"""
import random, sys
for name in ("transformers", "decord", "av", "cv2", "matplotlib", "nvidia", "tensorboard", "pyarrow"):
    sys.modules[name] = None
import numpy, torch, logging, os
import sklearn  # sets KMP_* itself
before = (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
environment, handlers, threads = dict(os.environ), list(logging.getLogger().handlers), torch.get_num_threads()
sys.argv = ["program", "--no-such-flag"]
for name in {modules}:
    __import__(name)
assert before == (random.getstate(), numpy.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
assert (environment, handlers) == (dict(os.environ), logging.getLogger().handlers)
assert threads == torch.get_num_threads()
assert not torch.cuda.is_initialized()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
