"""The programs `splavu` and `study` as users start them: from any folder, whatever files lie there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import forks
import numpy as np
import pytest
from conftest import REPOSITORY
from refusals import assert_refusal, refused
from sklearn.decomposition import PCA

import splavu
from splavu.__main__ import COMMANDS, STUDY_COMMANDS, main
from splavu.runtime import checkout, extras

HOSTILE = "raise SystemExit('a file of the user was imported: ' + __file__)\n"
NAMES = (
    "config", "jobs", "compare", "sweep", "commands", "errors", "datasets", "json", "argparse", "logging", "pathlib",
    "typing", "csv", "random", "numpy", "torch", "yaml", "tqdm",
)  # fmt: skip
"""Of files that a user may well have: old modules of this project, Python's own, packages."""
MAX_SECONDS = 1.0
"""Of processor time that --help may take."""


@pytest.fixture(params=["empty", "hostile"])
def folder(request, tmp_path) -> Path:
    """An empty folder, and one full of modules that must not be imported."""
    if request.param == "hostile":
        for name in NAMES:
            (tmp_path / f"{name}.py").write_text(HOSTILE)
    return tmp_path


def started(*program: object, cwd: Path, **environment: str) -> tuple[int, str, str, float]:
    """Exit code, output, errors and processor seconds of `python PROGRAM ...`."""
    with (cwd / ".out").open("w+") as out, (cwd / ".err").open("w+") as err:
        process = subprocess.Popen(
            [sys.executable, *map(str, program)], cwd=cwd, stdout=out, stderr=err, env={**os.environ, **environment}
        )
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = [(file.seek(0), file.read())[1] for file in (out, err)]
    return process.returncode, *texts, used.ru_utime + used.ru_stime


@pytest.mark.parametrize("command", [*COMMANDS, *STUDY_COMMANDS])
def test_help_takes_under_a_second_of_processor_time(folder, command):
    code, out, err, seconds = started("-m", "splavu", command, "--help", cwd=folder)
    assert code == 0, err
    assert out.startswith(f"usage: splavu {command} ")
    assert "Exit codes: 0 done" in out
    assert seconds < MAX_SECONDS
    assert {path.stem for path in folder.iterdir() if path.suffix != ".py"} <= {".out", ".err"}


def test_the_overview_lists_every_command_and_imports_none(folder):
    program = (
        "import sys; sys.argv = ['splavu', '--help']\n"
        "from splavu.__main__ import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'numpy', 'h5py', 'sklearn', 'tqdm'} & set(sys.modules)\n"
        "heavy |= {name for name in sys.modules if name.startswith('splavu.commands.')}\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    code, out, err, seconds = started("-P" if sys.version_info >= (3, 11) else "-I", "-c", program, cwd=folder)
    assert code == 0, err
    assert all(f"\n  {name} " in out for name in (*COMMANDS, *STUDY_COMMANDS))
    assert seconds < MAX_SECONDS


def test_import_is_light(tmp_path):
    code, _, err, seconds = started("-c", "import splavu; splavu.__version__", cwd=tmp_path)
    assert code == 0, err
    assert seconds < 0.2


def test_the_api_is_what_it_lists():
    assert all(getattr(splavu, name) is not None for name in splavu.__all__)
    assert set(splavu.__all__) <= set(dir(splavu))
    with pytest.raises(AttributeError, match="no_such_name"):
        splavu.no_such_name  # noqa: B018


def test_a_closed_form_is_fitted_by_name():
    features = np.random.default_rng(0).normal(size=(60, 12)).astype(np.float32)
    data = splavu.FitData(features)
    made = splavu.Anonymizer(splavu.fit("pca", data, keep=4))
    centred = features - features.mean(axis=0)
    expected = PCA(4, svd_solver="full").fit(centred)
    np.testing.assert_allclose(
        made.transform(features) - features.mean(axis=0),
        expected.inverse_transform(expected.transform(centred)),
        atol=1e-4,  # float32
    )
    for method, options, culprit in (("pac", {}, "method"), ("pca", {"keep": 0}, "keep"), ("pca", {"kep": 3}, "kep")):
        with refused(culprit):
            splavu.fit(method, data, **options)


BAD_INPUT = [
    (["verify", "absent.h5"], "absent.h5"),
    (["audit"], "--released, --labels"),
    (["audit", "--released", "absent.h5", "--labels", "absent.csv"], "--released"),
    (["audit-report", "absent.json"], "absent.json"),
    (["anonymize", "--aam", "absent.pth", "absent.h5", "out.h5"], "absent.h5"),
    (["export", "--aam", "absent.pth", "out.onnx"], "absent.pth"),
    (["report", "absent"], "absent"),
    (["synthesize", "--out", "world", "--sets", "hmbd51"], "set 'hmbd51'"),
    (["fit", "pca", "--raw", "absent.h5", "--out", "out.pth", "--keep", "4"], "absent.h5"),
    (["tune", "--raw", "absent.h5", "--labels", "absent.csv", "--out", "tuned"], "absent.h5"),
    (["sweep", "--params", "absent.py"], "absent.py"),
    (["check-data", "hmbd51"], "data set"),
    (["adit"], "adit"),
]


@pytest.mark.parametrize(("arguments", "culprit"), BAD_INPUT, ids=[" ".join(one[:2]) for one, _ in BAD_INPUT])
def test_bad_input_is_one_line_and_exit_code_2_and_nothing_is_written(tmp_path, arguments, culprit):
    """Of the installed program and of `python -m splavu` alike."""
    entry = "from splavu.__main__ import entry; entry()"
    answers = []
    for program in (["-m", "splavu"], ["-c", entry]):
        done = forks.python(*program, *arguments, cwd=tmp_path, environment=os.environ)
        assert (done.returncode, done.stdout) == (2, "")
        assert_refusal(done.stderr, culprit)
        answers.append(done.stderr.partition(": ")[2])
        assert not list(tmp_path.iterdir())
    assert answers[0] == answers[1]


def test_study_commands_run_from_any_folder(folder):
    """By the library, by name, and from another place that a variable names."""
    for program in (("-m", "splavu"), ("-m", "study")):
        code, out, err, _ = started(*program, "reproduce", "table9", "--dry-run", "--quiet", cwd=folder)
        assert code == 1, err  # nothing is there
        assert "missing: " in out
    with refused("SPLAVU_CHECKOUT") as caught, pytest.MonkeyPatch.context() as patch:
        patch.setenv(checkout.VARIABLE, str(folder))
        main(["sweep"])
    assert str(folder) in caught.value.problem
    code, out, err, _ = started("-m", "splavu", "compare", "--help", cwd=folder, **{checkout.VARIABLE: str(REPOSITORY)})
    assert (code, err) == (0, "")


SCRIPTS = (
    "multitask_train_fa.py", "pretrain_fa.py", "train_ft.py", "privacy_eval.py",
    "vp/train_vp_fa.py", "vp/train_vp_ft.py", "vp/train_vp_fb.py",
    "bias/evaluate_bias.py", "gait/evaluate_gait.py", "pahmdb/eval_pahmdb.py",
    "feature_extraction/feature_extraction_action.py", "feature_extraction/long_videos.py",
)  # fmt: skip


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_find_their_parameters_from_any_folder(tmp_path, script):
    """A wrong --set is the first fault that is found, so the parameter file was read."""
    (tmp_path / "config.py").write_text(HOSTILE)
    options = ["--dataset", "hmdb51"] if script.startswith("feature_extraction/feature") else []
    words = (REPOSITORY / script, *options, "--set", "no_such_name=1")
    done = forks.python(*words, cwd=tmp_path, environment=os.environ)
    assert done.returncode == 2
    assert "no_such_name" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_process_and_a_fork_say_the_same(tmp_path):
    """What the tests of `forks` rest on: streams, exit code, and a traceback's last line."""
    programs = (
        ("-m", "splavu", "fit", "pca", "--raw", "absent.h5", "--out", "out.pth", "--keep", "4"),
        (REPOSITORY / "train_ft.py", "--set", "no_such_name=1"),
        ("-c", "import sys; print(sys.argv); print(1 / 0)", "a"),
        ("-c", "import sys; sys.exit('told')"),
        ("-c", "import os, config; print(os.getcwd(), config.__file__, __name__)"),
    )
    (tmp_path / "config.py").touch()
    for program in programs:
        code, out, err, _ = started(*program, cwd=tmp_path)
        done = forks.python(*program, cwd=tmp_path, environment=os.environ)
        assert (done.returncode, done.stdout) == (code, out)
        assert done.stderr.splitlines()[-1:] == err.splitlines()[-1:]


def test_a_missing_package_is_one_line_that_names_the_extra(monkeypatch):
    assert extras.require("json", extra="video", why="x").loads("1") == 1
    monkeypatch.setitem(sys.modules, "no_such_package", None)
    for use in (extras.require, extras.check):
        with refused("no_such_package") as caught:
            use("no_such_package.part", extra="video", why="videos are read with it")
        assert caught.value.remedy == 'pip install "splavu[video]"'
        with refused("a.mp4"):
            use("no_such_package", extra="video", why="videos are read with it", culprit="a.mp4")


def test_a_package_that_does_not_load_is_not_called_missing(tmp_path, monkeypatch):
    (tmp_path / "broken_package.py").write_text("import no_such_dependency\n")
    monkeypatch.syspath_prepend(tmp_path)
    with refused("broken_package") as caught:
        extras.require("broken_package", extra="video", why="videos are read with it")
    assert "no_such_dependency" in caught.value.problem
