"""Extract with a Ray cluster: the shards of `feature_extraction_action.py`, wherever Ray has room for them.

    python feature_extraction/ray_shards.py --shards 64 --gpus 1 -- --dataset kinetics400 --encoder videoMAE

What follows `--` goes to each shard. Videos and stores must be on a file system that all nodes share. Each shard is a
separate process, so that a crash costs the shard alone, and Ray starts it again up to three times.
Needs `pip install "splavu[ray]"`.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from splavu.errors import UserError
from splavu.runtime import cli, extras
from splavu.runtime.schema import Few, NonNegative, Positive

SCRIPT = Path(__file__).with_name("feature_extraction_action.py")


def main(argv: Sequence[str] | None = None) -> int:
    """0: all shards are done and merged. 1: some failed; the same command goes on where they stopped."""
    args = _parser().parse_args(argv)
    if args.shards < 2:
        raise UserError("--shards", f"is {args.shards}, at least 2 expected", "one shard needs no cluster")
    commands = shard_commands(args.shards, args.arguments)
    return summary(_mapped(commands, num_cpus=args.cpus, num_gpus=args.gpus, address=args.address))


def shard_commands(count: int, arguments: Sequence[str]) -> list[list[str]]:
    """The command of each shard."""
    return [[sys.executable, str(SCRIPT), *arguments, "--quiet", "--shard", f"{i}/{count}"] for i in range(count)]


def run_shard(row: dict) -> dict:
    """`{"shard", "command"}` -> `{"shard", "code", "output"}`, where output is the end of what it printed.

    Raises:
        ChildProcessError: It was killed, for Ray to try it again.
    """
    done = subprocess.run(list(row["command"]), capture_output=True, text=True, check=False)
    output = (done.stdout + done.stderr)[-2000:]
    if done.returncode < 0:
        raise ChildProcessError(f"shard {row['shard']} died of signal {-done.returncode}: {output}")
    return {"shard": int(row["shard"]), "code": done.returncode, "output": output}


def summary(results: Sequence[dict]) -> int:
    """Print the output of shards that did not succeed; the command's exit code."""
    failed = [result for result in sorted(results, key=lambda result: result["shard"]) if result["code"]]
    for result in failed:
        print(f"shard {result['shard']} left with {result['code']}:\n{result['output']}")
    print(f"{len(results)} shards, {len(failed)} of them with failures")
    return 1 if failed else 0


def _mapped(commands: Sequence[Sequence[str]], *, num_cpus: float, num_gpus: float, address: str | None) -> list[dict]:
    ray = extras.require("ray", extra="ray", why="shards run on it (or use torchrun or --shard)")
    extras.require("ray.data", extra="ray", why="shards run on it")
    ray.init(address=address)
    rows = [{"shard": index, "command": list(command)} for index, command in enumerate(commands)]
    ray.data.DataContext.get_current().max_errored_blocks = len(rows)  # a shard lost for good stops no other
    shards = ray.data.from_items(rows, override_num_blocks=len(rows))
    done = shards.map(run_shard, num_cpus=num_cpus, num_gpus=num_gpus, max_retries=3, retry_exceptions=True).take_all()
    lost = set(range(len(rows))) - {result["shard"] for result in done}
    return done + [{"shard": index, "code": 1, "output": "lost: its process died again and again"} for index in lost]


def _parser() -> argparse.ArgumentParser:
    parser = cli.ArgumentParser(description=__doc__, epilog=cli.EXIT_CODES)
    parser.add_argument("--shards", type=Few, required=True, help="how many; a few for each node or GPU")
    parser.add_argument("--cpus", type=Positive, default=2, help="cores that a shard takes (default: 2)")
    parser.add_argument("--gpus", type=NonNegative, default=0, help="GPUs that a shard takes (default: 0)")
    parser.add_argument("--address", help="of the cluster; by default the one Ray finds, else this machine")
    parser.add_argument("arguments", nargs="*", help="of feature_extraction_action.py, after --")
    return parser


if __name__ == "__main__":
    cli.run(main)
