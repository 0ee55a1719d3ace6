"""What extraction survives: kills at random moments, decoders that die or hang, ranks that never come back.

Each test kills a few times; for the full measure:

    SPLAVU_KILL_ROUNDS=10 python -m pytest tests/scripts/test_extraction_kill.py
"""

from __future__ import annotations

import functools
import os
import random
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import REPOSITORY
from refusals import refused

av = pytest.importorskip("av")
pytest.importorskip("transformers")
if os.name != "posix":
    pytest.skip("kills and descriptors as POSIX knows them", allow_module_level=True)

from feature_extraction.feature_extraction_action import main  # noqa: E402
from feature_extraction.ray_shards import shard_commands, summary  # noqa: E402
from splavu.errors import UserError  # noqa: E402
from splavu.extraction.decoding import Job  # noqa: E402  needs the above
from splavu.extraction.encoders import load_encoder  # noqa: E402
from splavu.extraction.extract import extract  # noqa: E402
from splavu.stores import FeatureStore  # noqa: E402

SCRIPT = REPOSITORY / "feature_extraction" / "feature_extraction_action.py"
ROUNDS = int(os.environ.get("SPLAVU_KILL_ROUNDS", "2"))
NUM_VIDEOS = 20 + 10 * ROUNDS


def write_video(path: Path, num_frames: int, *, seed: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    still = rng.integers(0, 255, (6, 8, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)  # [48, 64, 3]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for i in range(num_frames):
            frame = np.ascontiguousarray(np.roll(still, i, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    for i in range(NUM_VIDEOS):
        write_video(folder / f"v{i:02d}.avi", 20 + 5 * (i % 13), seed=i)
    return folder


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Path:
    """The folder of an uninterrupted run in one process, with threads."""
    folder = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    command = ["--videos", str(videos), "--out", str(folder / "s.h5"), "--static", "2", "--workers", "0"]
    assert main([*command, "--quiet", "--device", "cpu"]) == 0
    return folder


def assert_same_stores(folder: Path, whole: Path) -> None:
    """Not a byte differs, and nothing else is left."""
    assert sorted(path.name for path in folder.iterdir()) == ["s.h5", "s_fb2.h5"]
    for name in ("s.h5", "s_fb2.h5"):
        store, expected = FeatureStore(folder / name), FeatureStore(whole / name)
        store.verify()
        assert store.attributes == expected.attributes
        assert store.keys() == expected.keys()
        assert len(store) == NUM_VIDEOS
        assert all(np.array_equal(store[key], expected[key]) for key in store)
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


def num_parts(folder: Path) -> int:
    return len(list((folder / "s.h5.partial").glob("*.npz")))


def wait_until(condition, *, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def descendants(pid: int) -> list[int]:
    """Children of `pid`, theirs, and so on."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").glob("*"):
        for child in map(int, (task / "children").read_text().split()):
            found += [child, *descendants(child)]
    return found


def test_four_workers_killed_at_random_leave_the_same_store(videos, whole, tmp_path):
    """In turn the command itself is killed, and goes on when given again, and one of its workers, and it goes on."""
    if not Path("/proc/self/task").is_dir():
        pytest.skip("needs /proc to find the workers")
    rng = random.Random(0)
    command = [
        sys.executable,
        str(SCRIPT),
        "--videos",
        str(videos),
        "--static",
        "2",
        "--workers",
        "4",
        "--device",
        "cpu",
    ]
    command += ["--out", str(tmp_path / "s.h5"), "--quiet"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for index in range(ROUNDS):
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        is_last = index == ROUNDS - 1
        before = num_parts(tmp_path)
        room = NUM_VIDEOS - before - 2 * (ROUNDS - index)
        if room <= 1 and not is_last:
            process.kill()
            process.wait()
            continue
        enough = before + rng.randint(1, max(1, min(room, NUM_VIDEOS // ROUNDS)))
        wait_until(lambda: process.poll() is not None or num_parts(tmp_path) >= enough)  # noqa: B023  waited for here
        # The server of the workers is the one with children of its own.
        workers = [grand for child in descendants(process.pid) for grand in descendants(child)]
        if index % 2 and workers:
            os.kill(rng.choice(workers), signal.SIGKILL)
            time.sleep(rng.uniform(0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert not any(path.suffix == ".h5" and num_parts(tmp_path) for path in tmp_path.iterdir())
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_same_stores(tmp_path, whole)


LAUNCHER = """
import os, sys, time
import torch, transformers, av
from feature_extraction.feature_extraction_action import main
transformers.VideoMAEForVideoClassification
torch.set_num_threads(1)
while line := sys.stdin.readline():  # a line is a round: the number of ranks
    ranks = []
    for rank in range(int(line)):
        pid = os.fork()
        if pid == 0:
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, 1)
            os.environ.update(RANK=str(rank), WORLD_SIZE=line.strip())
            os._exit(main(sys.argv[1:]))
        ranks.append(pid)
    print(*ranks, flush=True)
    sys.stdin.readline()  # until then their numbers are theirs, even of those that have left
    print(*[os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in ranks], flush=True)
"""


def test_ranks_killed_at_random_leave_the_same_store(videos, whole, tmp_path):
    """Four ranks, killed one after another in each round; then three ranks end it."""
    rng = random.Random(1)
    command = ["--videos", str(videos), "--static", "2", "--workers", "0", "--device", "cpu", "--quiet"]
    launcher = subprocess.Popen(
        [sys.executable, "-c", LAUNCHER, *command, "--out", str(tmp_path / "s.h5")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )

    def start(count: int) -> list[int]:
        launcher.stdin.write(f"{count}\n")
        launcher.stdin.flush()
        return [int(pid) for pid in launcher.stdout.readline().split()]

    def codes() -> list[int]:
        launcher.stdin.write("\n")
        launcher.stdin.flush()
        return [int(code) for code in launcher.stdout.readline().split()]

    with launcher:
        num_killed = 0
        for _ in range(ROUNDS):
            ranks, before = start(4), num_parts(tmp_path)
            merged = tmp_path / "s.h5"
            wait_until(lambda: num_parts(tmp_path) > before or merged.exists())  # noqa: B023  waited for here
            rng.shuffle(ranks)
            for rank in ranks:  # one after another
                time.sleep(rng.uniform(0, 0.1 / ROUNDS))
                os.kill(rank, signal.SIGKILL)
            num_killed += codes().count(-signal.SIGKILL)
            if (tmp_path / "s.h5").exists():
                break
        assert num_killed >= min(4, 2 * ROUNDS)
        start(3)
        assert codes() == [0, 0, 0]
        launcher.stdin.close()
    assert_same_stores(tmp_path, whole)


def test_shards_one_after_another_merge_when_the_last_is_done(videos, whole, tmp_path, capsys):
    command = ["--videos", str(videos), "--static", "2", "--out", str(tmp_path / "s.h5"), "--workers", "0"]
    command += ["--device", "cpu", "--quiet"]
    for shard in ("2/3", "0/3"):
        assert main([*command, "--shard", shard]) == 0
        assert not (tmp_path / "s.h5").exists()
    with refused("--shard", naming="'3/3'"):
        main([*command, "--shard", "3/3"])
    with refused("--fresh"):
        main([*command, "--shard", "1/3", "--fresh"])
    assert main([*command, "--shard", "1/3"]) == 0
    assert_same_stores(tmp_path, whole)


def test_merge_takes_what_is_there_and_says_what_is_missing(videos, whole, tmp_path, capsys):
    command = ["--videos", str(videos), "--static", "2", "--out", str(tmp_path / "s.h5"), "--workers", "0"]
    command += ["--device", "cpu", "--quiet"]
    assert main([*command, "--shard", "0/2"]) == 0
    capsys.readouterr()
    assert main([*command, "--merge"]) == 1
    assert f"{NUM_VIDEOS // 2} failed" in capsys.readouterr().out
    assert len(FeatureStore(tmp_path / "s.h5")) == NUM_VIDEOS // 2
    assert main(command) == 0
    assert_same_stores(tmp_path, whole)


TIMEOUT = 12.0
"""Seconds of silence allowed: many times what a good worker needs for a piece on a machine that does much else."""


def pieces(what: str):
    """Two pieces of a clip each, with something in between."""
    yield "clips", torch.full((1, 16, 80, 80, 3), 100, dtype=torch.uint8)
    if what == "segfault":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif what == "exit":
        os._exit(7)
    elif what == "hang":
        time.sleep(10_000)
    elif what == "slow":  # longer than the timeout, but never silent for more than a small part of it
        for _ in range(round(1.25 * TIMEOUT / 0.5)):
            time.sleep(0.5)
            yield None
    elif what == "bad":
        raise UserError("a file", "is bad", "mend it")
    yield "clips", torch.full((1, 16, 80, 80, 3), 200, dtype=torch.uint8)


def test_a_decoder_that_dies_or_hangs_loses_its_file_only():
    encoder = load_encoder("demo")

    def extracted(names, **options):
        results = extract(
            [Job(name, functools.partial(pieces, name)) for name in names],
            encoder,
            preprocessing=encoder.spec.preprocessing,
            device=torch.device("cpu"),
            **options,
        )
        return {result.key: result for result in results}

    names = ["good 1", "segfault", "exit", "good 2", "hang", "bad", "slow", "good 3"]
    found = extracted(names, num_workers=2, is_isolated=True, timeout=TIMEOUT)
    assert sorted(found) == sorted(names)
    problems = {key: result.error.problem for key, result in found.items() if result.error}
    assert sorted(problems) == ["bad", "exit", "hang", "segfault"]
    assert problems["bad"] == "is bad"
    assert "SIG" not in problems["exit"]
    assert "SIGSEGV" in problems["segfault"]
    assert f"{TIMEOUT:g} s" in problems["hang"]
    expected = extracted(["good 1"], num_workers=1)["good 1"].features["clips"]
    assert expected.shape == (2, 192)
    for key in ("good 1", "good 2", "good 3", "slow"):
        np.testing.assert_array_equal(found[key].features["clips"], expected)


def overlapping(stride: int):
    frames = torch.arange(40 * 8 * 8 * 3, dtype=torch.int64).remainder(251).to(torch.uint8).view(40, 8, 8, 3)
    yield "cut", frames.unfold(0, 16, stride).movedim(-1, 1)[:, :, 1:7, 2:6]
    yield "still", frames[:5, None]


@pytest.mark.parametrize("stride", [1, 5, 16])
def test_clips_arrive_from_a_process_as_they_were_made(stride):
    from splavu.extraction.decoding import in_processes

    jobs = [Job(str(i), functools.partial(overlapping, stride)) for i in range(3)]
    arrived: dict[str, dict[str, torch.Tensor]] = {"0": {}, "1": {}, "2": {}}
    for key, item in in_processes(jobs, 2):
        if isinstance(item, tuple):
            arrived[key][item[0]] = item[1]
    for outputs in arrived.values():
        for output, clips in overlapping(stride):
            assert torch.equal(outputs[output], clips)


def test_a_worker_may_end_at_once_and_nothing_was_offered_through_a_socket(capfd):
    """Files are inherited at the start: what served them would print a traceback when a process ends meanwhile."""
    from multiprocessing import resource_sharer

    from splavu.extraction.decoding import _Worker

    workers = [_Worker() for _ in range(3)]
    for worker in workers:
        worker.end()
    for worker in workers:
        worker.stop()
    assert resource_sharer._resource_sharer._address is None
    assert not capfd.readouterr().err


def many(seed: int):
    """More pieces than a worker has files for, larger and smaller in turn."""
    generator = torch.Generator().manual_seed(seed)
    for index in range(11):
        yield str(index), torch.randint(256, (1 + 5 * index % 7, 2, 9, 5, 3), dtype=torch.uint8, generator=generator)


def test_pieces_stay_as_they_came_while_others_follow():
    from splavu.extraction.decoding import in_processes

    arrived: dict[str, list[tuple[str, torch.Tensor]]] = {"1": [], "2": []}
    for key, item in in_processes([Job(key, functools.partial(many, int(key))) for key in arrived], 1):
        if isinstance(item, tuple):
            arrived[key].append(item)
    for key, pieces_of_one in arrived.items():  # all of them are kept until the last has come
        expected = list(many(int(key)))
        assert [output for output, _ in pieces_of_one] == [output for output, _ in expected]
        assert all(torch.equal(got, clips) for (_, got), (_, clips) in zip(pieces_of_one, expected, strict=True))


def test_the_command_reports_a_crash_and_a_hang_and_goes_on(tmp_path):
    """Through the whole command, with a reader that is made to fail where the file's name says so."""
    folder = tmp_path / "videos"
    for name in ("a", "b", "crash", "c", "hang", "d"):
        write_video(folder / f"{name}.avi", 40)
    (tmp_path / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os, signal, time
            from splavu.extraction.videos import pyav
            decode = pyav.PyAVReader._decode
            def faulty(self, wanted=None):
                if self.path.stem == "crash":
                    os.kill(os.getpid(), signal.SIGSEGV)
                if self.path.stem == "hang":
                    time.sleep(1000)
                yield from decode(self, wanted)
            pyav.PyAVReader._decode = faulty
            """
        )
    )
    path = os.pathsep.join([str(tmp_path), str(REPOSITORY)])
    command = [sys.executable, str(SCRIPT), "--videos", str(folder), "--out", str(tmp_path / "s.h5"), "--workers", "2"]
    done = subprocess.run(
        [*command, "--timeout", "12", "--device", "cpu", "--quiet", "--backend", "pyav"],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    assert re.search(r"failed: crash: .*crash\.avi: the decoder died of SIGSEGV", done.stdout)
    assert re.search(r"failed: hang: .*hang\.avi: the decoder hung", done.stdout)
    assert FeatureStore(tmp_path / "s.h5").keys() == ["a", "b", "c", "d"]


def test_ray_gets_one_command_a_shard():
    commands = shard_commands(2, ["--videos", "v", "--out", "o.h5"])
    assert [command[-2:] for command in commands] == [["--shard", "0/2"], ["--shard", "1/2"]]
    assert all(command[1].endswith("feature_extraction_action.py") for command in commands)
    assert summary([{"shard": 0, "code": 0, "output": ""}, {"shard": 1, "code": 0, "output": ""}]) == 0
    assert summary([{"shard": 0, "code": 0, "output": ""}, {"shard": 1, "code": -9, "output": "killed"}]) == 1
