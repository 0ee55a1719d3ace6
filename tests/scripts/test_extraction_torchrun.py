"""Long videos under torchrun: every rank does its share, and a failure of any is the exit code of all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("transformers")
av = pytest.importorskip("av")

from splavu.stores import FeatureFolder  # noqa: E402  needs the above

SCRIPT = Path(__file__).resolve().parents[2] / "feature_extraction" / "long_videos.py"


def write_video(path: Path, num_frames: int) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 96, "yuv420p"
        for i in range(num_frames):
            picture = np.full((96, 96, 3), 5 * i % 256, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_a_failure_in_any_rank_is_the_exit_code_and_stops_no_other(tmp_path):
    videos, out = tmp_path / "videos", tmp_path / "out"
    videos.mkdir()
    for name, length in (("a", 40), ("c", 16), ("d", 33)):
        write_video(videos / f"{name}.mp4", length)
    (videos / "b.mp4").write_bytes(b"no video")  # keys are dealt out in turn: it is rank 1's
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(SCRIPT)]
    command += ["--videos", str(videos), "--out", str(out), "--quiet", "--device", "cpu", "--workers", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)

    done = run()
    assert done.returncode == 1, done.stderr
    assert done.stdout.count("failed: b: ") == 1
    assert "1 failed" in done.stdout
    assert FeatureFolder(out).keys() == ["a", "c", "d"]
    (videos / "b.mp4").unlink()
    write_video(videos / "b.mp4", 20)
    done = run()
    assert done.returncode == 0, done.stderr
    assert FeatureFolder(out).keys() == ["a", "b", "c", "d"]
