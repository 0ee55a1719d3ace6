"""Decisions about the structure that are worth keeping: who may import whom, and what an import may do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import REPOSITORY

LAYERS = (
    ("errors", "encoders"),
    (
        "tables",
        "params",
        "runtime",
        "labels",
        "labels_private",
        "labels_table",
        "splits",
        "stores",
        "verification",
        "processes",
    ),
    ("packing", "packed", "clips", "streams", "datasets", "metrics", "groups", "retrieval", "tradeoff"),
    ("anonymizers", "erasure", "guarantees", "objectives", "optimizers"),
    ("heads", "attackers"),
    ("learners", "critics", "tasks", "checkpoints", "runs"),
    ("engine", "probes", "loop", "multitask", "protocols", "attacks", "crossfit", "published", "released"),
    (
        "anonymize",
        "audit",
        "figures",
        "fitting",
        "model_card",
        "onnx_export",
        "operating_points",
        "pretrained",
        "recipes",
        "report_tables",
        "reports",
        "sweep_figures",
        "use_probes",
        "cli",
    ),
    ("__main__",),
)
"""splavu's rooms, lowest first: a module imports from its own row or from rows above this one in the list."""

PROTOCOLS = ("vp", "bias", "pahmdb", "gait")
"""Folders of short scripts over the library."""

LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
PACKAGE = REPOSITORY / "splavu"
LIBRARY = sorted(path for path in PACKAGE.rglob("*.py") if path.relative_to(PACKAGE).parts[0] != "synthetic")
STUDY = {
    "candidates", "catalogue", "check_data", "compare", "comparison", "comparison_costs", "comparison_figure",
    "comparison_results", "comparison_table", "config", "feature_dl", "holdings", "job_runs", "jobs",
    "long_videos_of_use", "model_loaders", "multitask_params", "published_numbers", "reproduce", "reproduction",
    "sweep", "sweep_measuring", "sweep_results", "untrimmed",
}  # fmt: skip
UPPER = {*STUDY, "feature_extraction", *PROTOCOLS, "tridet", "mgfn"}


def imported(path: Path) -> set[str]:
    """Dotted names of every module that `path` imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def dotted(path: Path) -> str:
    """A module of the library by its name below `splavu`; a package by its own."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix("__init__").removesuffix(".")


@pytest.mark.parametrize("path", [p for p in LIBRARY if dotted(p)], ids=dotted)
def test_modules_of_the_library_import_downwards_only(path):
    here = dotted(path).split(".")[0]  # a package is one room
    assert here in LEVEL, f"{path.name} has no room yet: add it to LAYERS"
    for name in imported(path):
        root, _, rest = name.partition(".")
        assert root not in UPPER, f"{path.name} imports {name}, which lies above the library"
        if root == "splavu" and (room := rest.split(".")[0]) in LEVEL:
            assert LEVEL[room] <= LEVEL[here], f"{path.name} imports upwards: {name}"


def test_feature_extraction_and_the_world_stay_in_their_rooms():
    scripts = {path.stem for path in REPOSITORY.glob("*.py")} - UPPER
    for path in (REPOSITORY / "feature_extraction").rglob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & scripts, path
    for path in (REPOSITORY / "splavu/synthetic").glob("*.py"):
        assert not {name.split(".")[0] for name in imported(path)} & UPPER, path


def test_only_stores_opens_a_store():
    rooms = [
        REPOSITORY.glob("*.py"),
        *((REPOSITORY / room).rglob("*.py") for room in ("splavu", "feature_extraction", *PROTOCOLS)),
    ]
    sources = [path for room in rooms for path in room]
    assert len(sources) > 40
    offenders = [path.relative_to(REPOSITORY).as_posix() for path in sources if "h5py" in imported(path)]
    assert {Path(name).parent.as_posix() for name in offenders} == {"splavu/stores"}


def test_importing_does_nothing_and_needs_no_optional_package():
    """All of splavu and the modules of the study, in a fresh process with the optional packages out of reach."""
    modules = [f"splavu.{dotted(path)}" for path in LIBRARY if dotted(path) not in ("", "__main__")]
    modules += [
        "config",
        "catalogue",
        "check_data",
        "feature_dl",
        "model_loaders",
        "multitask_train_fa",
        "pretrain_fa",
        "train_ft",
        "privacy_eval",
    ]
    modules += [f"{path.parent.name}.{path.stem}" for room in PROTOCOLS for path in (REPOSITORY / room).glob("*.py")]
    program = f"""
import random, sys
for name in ("transformers", "decord", "av", "cv2", "matplotlib", "nvidia", "fairlearn"):
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


CORES = {"tridet": {"task", "learner", "train", "from_video"}, "mgfn": {"task", "train", "main"}}
"""Folders that stand alone, and the modules by which they join this study."""


@pytest.mark.parametrize("core", CORES)
def test_a_core_stands_alone(core):
    """A person may copy the folder into another project."""
    modules = [path for path in (REPOSITORY / core).rglob("*.py") if path.stem not in CORES[core]]
    assert len(modules) > 10
    for path in modules:
        roots = {name.split(".")[0] for name in imported_at_once(path)}
        assert not roots & ((UPPER | {"splavu"}) - {core}), f"{path.name} imports {sorted(roots & UPPER)}"


def imported_at_once(path: Path) -> set[str]:
    """Dotted names of the modules that importing `path` imports: those at its top level."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found
