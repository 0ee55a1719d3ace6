"""The wheel as a stranger installs it: what it holds, and that its programs run without the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from conftest import REPOSITORY
from refusals import assert_refuses

from splavu.__main__ import COMMANDS, STUDY_COMMANDS

pytestmark = pytest.mark.slow

WITHOUT = (
    "cv2",
    "av",
    "decord",
    "matplotlib",
    "tensorboard",
    "fairlearn",
    "pandas",
    "transformers",
    "pyarrow",
    "onnx",
    "huggingface_hub",
    "safetensors",
)
"""Packages that the base install does not bring."""
BLOCKED = "import sys\nfor name in {names!r}:\n    sys.modules[name] = None\n"


def run(*command: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "SPLAVU"))}
    return subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built without the network, from a copy: a build folder of before must not leak into it."""
    folder = tmp_path_factory.mktemp("wheel")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("needs git, to copy what is tracked")
    for name in filter(None, tracked.stdout.split("\0")):
        if name.startswith(("splavu/", "study/", "tests/")) or "/" not in name:
            target = folder / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((REPOSITORY / name).read_bytes())
    command = ["pip", "wheel", "--no-deps", "--no-build-isolation", "-q", "-w", str(folder), str(folder / "source")]
    done = subprocess.run([sys.executable, "-m", *command], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel) -> Path:
    """The programs of a virtual environment with the wheel; it borrows this one's packages, but for the optional ones,
    and knows nothing of the checkout."""
    home = wheel.parent / "venv"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    programs = home / ("Scripts" if os.name == "nt" else "bin")
    packages = Path(
        run(programs / "python", "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").stdout.strip()
    )
    borrowed = packages / "borrowed.pth"
    borrowed.write_text(
        "\n".join(path for path in sys.path if path.endswith(("site-packages", "dist-packages"))) + "\n"
    )
    options = ("--no-deps", "--no-index", "--ignore-installed", "--quiet", "--disable-pip-version-check")
    done = run(programs / "python", "-m", "pip", "install", *options, wheel)
    assert done.returncode == 0, done.stderr
    (packages / "blocked_packages.py").write_text(BLOCKED.format(names=WITHOUT))
    borrowed.write_text(borrowed.read_text() + "import blocked_packages\n")
    return programs


@pytest.fixture(params=["empty", "hostile"])
def folder(request, tmp_path) -> Path:
    if request.param == "hostile":
        for name in ("config", "jobs", "compare", "study", "json", "numpy", "argparse"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('a file of the user was imported')\n")
    return tmp_path


def test_the_wheel_holds_splavu_alone(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"splavu"}
    assert len([name for name in names if name.endswith(".py")]) > 100
    for name in ("py.typed", "synthetic/demo_encoder/model.safetensors", "synthetic/demo_encoder/config.json"):
        assert f"splavu/{name}" in names
    tracked = subprocess.run(["git", "ls-files", "splavu"], cwd=REPOSITORY, capture_output=True, text=True).stdout
    assert set(tracked.split()) <= set(names), "a file of the package is left out: see package-data in pyproject.toml"
    assert not [name for name in names if "test" in name.split("/")]


def test_the_base_install_asks_for_no_optional_package(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        lines = archive.read(metadata).decode().splitlines()
    required = [line.removeprefix("Requires-Dist: ") for line in lines if line.startswith("Requires-Dist: ")]
    base = {line.partition(">")[0].strip() for line in required if "extra ==" not in line}
    assert {"torch", "numpy", "h5py"} <= base
    optional = {"opencv-python-headless", "fairlearn", "pandas", "tensorboard", "matplotlib", "av", "transformers"}
    assert not base & optional
    extras = {line.partition(": ")[2] for line in lines if line.startswith("Provides-Extra: ")}
    assert {"video", "encoders", "train", "report", "hub", "onnx", "parquet", "all"} <= extras


def test_every_command_answers_without_the_checkout(installed, folder):
    for program in ([installed / "splavu"], [installed / "python", "-m", "splavu"]):
        listing = run(*program, "--help", cwd=folder)
        assert (listing.returncode, listing.stderr) == (0, "")
        for command in COMMANDS:
            assert command in listing.stdout
            done = run(*program, command, "--help", cwd=folder)
            assert (done.returncode, done.stderr) == (0, ""), command
    where = run(installed / "python", "-P" if sys.version_info >= (3, 11) else "-I", "-c",
                "import splavu; print(splavu.__file__)", cwd=folder)  # fmt: skip
    assert str(installed.parent) in where.stdout


def test_study_commands_say_that_they_need_a_checkout(installed, folder):
    for command in STUDY_COMMANDS:
        done = run(installed / "splavu", command, cwd=folder)
        assert (done.returncode, done.stdout) == (2, "")
        assert_refuses(done, command, "SPLAVU_CHECKOUT")


@pytest.mark.parametrize(
    ("arguments", "culprit", "extra"),
    [
        (("synthesize", "--out", "world", "--size", "tiny"), "cv2", "video"),
        (("report", "."), "matplotlib", "report"),
        (("anonymize", "--aam", "owner/name", "a.parquet", "b.parquet"), "owner/name", "hub"),
    ],
)
def test_a_missing_extra_is_one_line_that_names_it(installed, tmp_path, arguments, culprit, extra):
    done = run(installed / "splavu", *arguments, cwd=tmp_path)
    assert_refuses(done, culprit, f'pip install "splavu[{extra}]"')
    assert not list(tmp_path.iterdir())
