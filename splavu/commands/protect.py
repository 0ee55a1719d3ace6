"""From a folder of videos, or a store of features, to a protected release and one page that says what it is worth.

Looks first: counts videos, clips and subjects, chooses what so much data allows, and stops with one line where it is
too little. Then it extracts features, fits an anonymizer to some of the subjects, releases all videos under secret
keys, audits the release where private labels are given, measures what it costs where actions are given, and writes
DIR/report.html. Every command that it runs is printed, and can be run by itself.

Smallest sizes: 12 subjects, of whom 10 are fitted to, for 1 bit a clip; B bits take 10 x 2^B clips of subjects who are
fitted to, since each released vector stands for 5 of them. An audit of attributes takes 10 test subjects and more, as
the labels are; with fewer it is undecided, which is said before.

The same command goes on where it stopped. Videos that were added since are released too, by the same anonymizer. Exit
code 1: some videos could not be read. Exit codes 3 and 4 are those of the audit.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import io
import logging
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splavu.anonymizers.closed_form.support import COMMON_FLOOR
from splavu.commands.extract import ENCODER
from splavu.errors import UserError
from splavu.runtime import cli, limits
from splavu.runtime.cli import ArgumentParser
from splavu.runtime.schema import Count

if TYPE_CHECKING:
    from splavu.data.private_labels import PrivateTable
    from splavu.protect.inventory import Inventory
    from splavu.protect.steps import Record, Step

logger = logging.getLogger(__name__)

NUM_STATIC = 10
RECORD, PAGE = "protect.json", "report.html"
UNDECIDED = 4


def add_arguments(parser: ArgumentParser) -> None:
    """The options of the command."""
    parser.usage = "splavu protect VIDEOS --out DIR [--actions CSV] [--private CSV] [--subjects CSV] [...]"
    parser.add_argument(
        "videos", metavar="VIDEOS", type=Path, nargs="?", help="folder of videos, also in folders below"
    )
    parser.add_argument("--features", type=Path, metavar="STORE", help="in place of VIDEOS: their raw features")
    parser.add_argument("--static", type=Path, metavar="STORE", help="of --features: static clips of the same videos")
    parser.add_argument("--out", type=Path, metavar="DIR", required=True, help="folder for all that is made")
    parser.add_argument("--actions", type=Path, metavar="CSV", help="filename,label, optionally subject,split")
    parser.add_argument(
        "--private",
        type=Path,
        metavar="CSV",
        help="filename,subject, private attributes, optionally split: for the audit",
    )
    parser.add_argument("--subjects", type=Path, metavar="CSV", help="filename,subject, optionally split")
    parser.add_argument("--attributes", help="comma list of columns of --private (default: all of them)")
    parser.add_argument("--encoder", default=ENCODER, metavar="NAME", help=f"of VIDEOS (default {ENCODER})")
    parser.add_argument("--weights", metavar="HUB_OR_PATH", help="of the encoder, in place of its own")
    parser.add_argument(
        "--min-subjects",
        type=Count,
        default=COMMON_FLOOR,
        help=f"behind each vector, at least {COMMON_FLOOR} (default)",
    )
    parser.add_argument("--bits", type=Count, help="a clip at most (default: what the data allows, 12 at most)")
    parser.add_argument("--rank", type=Count, help="directions to erase (default: what the data allows, 32 at most)")
    parser.add_argument("--full-audit", action="store_true", help="all attackers: hours instead of minutes")
    limits.add_reading(parser)


def run(args: argparse.Namespace) -> int:
    """Look, then run what isn't done yet."""
    from splavu.protect.steps import MARKS
    from splavu.runtime.files import claimed

    if (args.videos is None) == (args.features is None):
        raise UserError("VIDEOS", "one of VIDEOS and --features is expected", "see --help")
    if args.static is not None and args.features is None:
        raise UserError("--static", "goes with --features", "leave it out: static clips are extracted")
    with claimed(args.out / RECORD, inputs=_inputs(args), marks=MARKS):
        return _Protection(args).run()


def _inputs(args: argparse.Namespace) -> list[Path]:
    paths = (args.videos, args.features, args.static, args.actions, args.private, args.subjects)
    return [path for path in paths if path is not None]


def _wrapped(text: str) -> str:
    """As a terminal shows it."""
    return textwrap.fill(text, 100, subsequent_indent="  ")


class _Protection:
    """One run of the command."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args, self.out = args, args.out
        self.raw: Path = args.features or self.out / "features.h5"
        self.static: Path | None = args.static if args.features else self.out / f"features_fb{NUM_STATIC}.h5"
        self.released = self.out / f"released{'' if self.raw.is_dir() else self.raw.suffix}"
        self.subjects, self.private = self.out / "subjects.csv", self.out / "private_labels.csv"
        self.eraser, self.codes = self.out / "eraser.pth", self.out / "codes.pth"
        self.key_map = self.released.with_name(f"{self.released.name}.keys.csv")
        self.evidence, self.use = self.out / "audit/evidence.json", self.out / "use.json"
        self.steps: list[Step] = []
        self.failures: list[str] = []
        self.unknown: list[str] = []
        self.table: PrivateTable | None = None

    def run(self) -> int:
        """The whole."""
        from splavu.protect.steps import Record

        args = self.args
        record = Record(
            self.out / RECORD,
            {
                "source": str(args.videos or args.features),
                "encoder": args.encoder if args.videos else None,
                "weights": args.weights,
                "min_subjects": args.min_subjects,
            },
        )
        inventory, splits, is_power = self._look(record)
        if args.videos is not None and not self._is_extracted(inventory):
            self._say_time(inventory)
        code = self._extract(record) if args.videos is not None else 0
        inventory, splits = self._tables(record)
        recipe = self._recipe(record, inventory, splits)
        for step in self._fitting(recipe):
            self._do(record, step)
        self._release(record)
        audited = self._audit(record, is_power)
        self._probe(record, inventory, splits)
        self._page(record, inventory, splits, recipe)
        return audited or code

    # looking

    def _look(self, record: Record) -> tuple[Inventory, dict[str, str], bool]:
        """What there is and what it allows, printed; whether the audit can decide anything.

        Raises:
            UserError: It is too little: nothing was written yet.
        """
        from splavu.data.encoders import encoder_spec
        from splavu.data.private_labels import read_private_table
        from splavu.protect.inventory import clips_of_videos, read_inventory
        from splavu.protect.recipe import refuse_too_few

        args = self.args
        if args.private is not None:
            self.table = read_private_table(args.private, attributes=args.attributes)
        if args.videos is not None:
            from splavu.extraction.sources import folder_files

            files = folder_files(args.videos)
            self._refuse_gone(files)
            width = encoder_spec(args.encoder).feature_dim
            clips, unreadable = clips_of_videos(files, encoder_spec(args.encoder).num_frames)
            self.failures = [f"{key}: {reason}" for key, reason in unreadable.items()]
        else:
            clips, width = self._clips_of_store()
        source = args.videos or args.features
        inventory = read_inventory(clips, subjects=args.subjects, private=self.table, actions=args.actions)
        print(f"{source}: {inventory}")
        for failure in self.failures:
            logger.warning("can't be read, and is left out: %s", failure)
        refuse_too_few(inventory, source, args.min_subjects)
        splits = self._split(inventory)
        if record.get("recipe") is None:
            print(_wrapped(f"recipe: {self._choose(inventory, splits, width or 768)}"))
        decides = self._say_what_is_undecided(inventory, splits)
        if decides:
            long = "hours, with all attackers" if args.full_audit else "some minutes, with few attackers (quick)"
            print(f"audit: {long}")
        return inventory, splits, decides

    def _refuse_gone(self, files: Mapping[str, Path]) -> None:
        """Refuse to release on what was extracted of videos that were taken out of the folder since."""
        from splavu.stores import open_features

        if self.raw.is_file() and (gone := [key for key in open_features(self.raw) if key not in files]):
            problem = f"holds {len(gone)} videos that are no longer in {self.args.videos}, such as '{gone[0]}'"
            remedy = "`splavu withdraw` takes subjects out; or give another folder as --out, or put them back"
            raise UserError(self.raw, problem, remedy)

    def _clips_of_store(self) -> tuple[dict[str, int], int]:
        from splavu.stores import open_features

        store = open_features(self.raw)
        if "anonymizer_sha256" in store.attributes:
            raise UserError(self.raw, "is a released store: its features are anonymized already", "give raw features")
        return {key: store.num_rows(key) for key in store}, store.feature_dim

    def _split(self, inventory: Inventory) -> dict[str, str]:
        from splavu.data.subjects import read_subjects
        from splavu.protect.recipe import dealt

        before: Mapping[str, str] = {}
        if self.subjects.is_file():
            before = read_subjects(self.subjects, inventory.num_clips).splits
        values = None if self.table is None else self.table.of(inventory.num_clips).values
        return dealt(inventory, self.args.min_subjects, private=values, before=before)

    def _choose(self, inventory: Inventory, splits: Mapping[str, str], width: int) -> Any:
        from splavu.protect.recipe import choose

        args = self.args
        return choose(
            inventory,
            splits,
            args.subjects or args.videos or args.features,
            at_least=args.min_subjects,
            width=width,
            has_static=self.static is not None,
            bits=args.bits,
            rank=args.rank,
        )

    def _say_what_is_undecided(self, inventory: Inventory, splits: Mapping[str, str]) -> bool:
        """Whether the audit can decide; what can't be judged is printed and kept for the page."""
        from splavu.audit.gates import power_of_test
        from splavu.audit.inputs import planned_inputs

        if not inventory.subjects:
            self.unknown.append(
                "No table says who is in each video, so every video counts as a subject of its own. Where a person is "
                "in several, fewer people stand behind a vector, and a person may have been fitted to and tested on."
            )
        decides = False
        if self.table is None:
            self.unknown.append("What attackers predict, and whether they link videos: give --private.")
        else:
            try:
                planned = planned_inputs(self._table_with_splits(inventory, splits), inventory.num_clips)
            except UserError as few:  # of the table itself all else has been read
                self.unknown.append(f"What attackers predict: undecided. {few}.")
            else:
                power = power_of_test(planned)
                decides = power.decides
                if not decides:
                    self.unknown.append(f"What attackers predict: undecided. {power}.")
                self.unknown += planned.warnings
        if self.args.actions is None:
            self.unknown.append("What the release costs in use: give --actions.")
        self.unknown.append("Other uses than those measured here, such as detection in long videos.")
        for line in self.unknown[:-1]:
            print(_wrapped(f"not judged: {line}"))
        return decides

    def _table_with_splits(self, inventory: Inventory, splits: Mapping[str, str]) -> PrivateTable:
        """The private table with everyone's subject and split."""
        assert self.table is not None, "asked for where private labels are given"
        key_of = {row: key for key, row in self.table.rows_of(inventory.num_clips).items()}
        keys = [key_of.get(row) for row in range(len(self.table.names))]
        return dataclasses.replace(
            self.table,
            subjects=tuple("" if key is None else inventory.owner(key) for key in keys),
            splits=tuple("test" if key is None else splits[key] for key in keys),
        )

    # doing

    def _do(self, record: Record, step: Step) -> int:
        """Run a step; an exit code that ends the protection is raised as it would have been."""
        self.steps.append(step)
        code = record.run(step, self._call)
        if code not in step.allowed:
            raise SystemExit(code)
        return code

    def _call(self, argv: Sequence[str]) -> int:
        name, *rest = argv
        quiet = ["--quiet"] if self.args.quiet else []
        return cli.run_command(f"splavu.commands.{name.replace('-', '_')}", f"splavu {name}", [*rest, *quiet])

    def _is_extracted(self, inventory: Inventory) -> bool:
        from splavu.stores import open_features

        return self.raw.is_file() and set(inventory.num_clips) <= set(open_features(self.raw))

    def _say_time(self, inventory: Inventory) -> None:
        """Load the encoder, which may be refused, and take the time of one video."""
        from splavu.extraction.encoders import load_encoder
        from splavu.extraction.extract import Job, extract
        from splavu.extraction.sources import CLIPS, STATIC, folder_source
        from splavu.extraction.videos import pick_backend
        from splavu.runtime.environment import pick_device

        args = self.args
        encoder = load_encoder(args.encoder, args.weights)
        source = folder_source(args.videos, self.raw, encoder.spec.preprocessing, num_static=NUM_STATIC)
        lengths = sorted(inventory.num_clips, key=inventory.num_clips.__getitem__)
        key = lengths[len(lengths) // 2]
        pieces = source.only(key).pieces

        def of_one() -> Any:
            return pieces(key, [CLIPS, STATIC], num_frames=encoder.spec.num_frames, backend=pick_backend(None))

        for _ in range(2):  # the first one warms up
            started = time.monotonic()
            list(
                extract(
                    [Job(key, of_one)],
                    encoder,
                    preprocessing=source.preprocessing,
                    device=pick_device(args.device),
                    num_workers=1,
                )
            )
            spent = time.monotonic() - started
        whole = sum(inventory.num_clips.values()) + NUM_STATIC * len(inventory.num_clips)
        minutes = spent * whole / (inventory.num_clips[key] + NUM_STATIC) / 60
        print(f"extraction: about {max(1, round(minutes))} min, by the time of one video", flush=True)

    def _device(self) -> list[str]:
        return [] if self.args.device == "auto" else ["--device", self.args.device]

    def _extract(self, record: Record) -> int:
        from splavu.protect.steps import Step

        args = self.args
        argv = [
            "extract",
            str(args.videos),
            "--out",
            str(self.raw),
            "--encoder",
            args.encoder,
            "--static",
            str(NUM_STATIC),
        ]
        argv += ["--weights", args.weights] if args.weights else []
        assert self.static is not None, "videos have static clips"
        step = Step([*argv, *self._device()], [args.videos], [self.raw, self.static], allowed=(0, 1), is_resumed=True)
        return self._do(record, step)

    def _tables(self, record: Record) -> tuple[Inventory, dict[str, str]]:
        """Who is who and on which side, as the steps read it."""
        from splavu.protect.inventory import read_inventory
        from splavu.protect.recipe import refuse_too_few

        args = self.args
        clips, _ = self._clips_of_store()
        inventory = read_inventory(clips, subjects=args.subjects, private=self.table, actions=args.actions)
        refuse_too_few(inventory, args.videos or args.features, args.min_subjects)
        splits = self._split(inventory)
        if inventory.subjects:
            rows = [["filename", "subject", "split"], *([key, inventory.subjects[key], splits[key]] for key in clips)]
        else:
            rows = [["filename", "split"], *([key, splits[key]] for key in clips)]
        self._write_table(self.subjects, rows)
        if args.private is not None:
            self._write_table(self.private, self._private_rows(inventory, splits))
        record.keep("failures", self.failures)
        return inventory, splits

    def _private_rows(self, inventory: Inventory, splits: Mapping[str, str]) -> list[list[str]]:
        from splavu.data.csv_table import read_rows

        assert self.table is not None, "asked for where private labels are given"
        rows = read_rows(self.args.private)
        others = [name for name in rows[0] if name not in ("filename", "subject", "group", "split")]
        table = [["filename", "subject", "split", *others]]
        for key, place in self.table.rows_of(inventory.num_clips).items():
            table.append([key, inventory.owner(key), splits[key], *(rows[place][name] for name in others)])
        return table

    def _write_table(self, path: Path, rows: list[list[str]]) -> None:
        from splavu.runtime.files import write_bytes

        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows(rows)
        content = text.getvalue().encode(errors="surrogateescape")
        if not path.exists() or path.read_bytes() != content:
            write_bytes(path, content, inputs=_inputs(self.args))

    def _recipe(self, record: Record, inventory: Inventory, splits: Mapping[str, str]) -> Any:
        from splavu.protect.recipe import Recipe

        if (kept := record.get("recipe")) is not None:
            for name in ("bits", "rank"):
                asked = getattr(self.args, name)
                if asked is not None and asked != kept[name]:
                    problem = f"holds a release made with {name} = {kept[name]}, not {asked}"
                    raise UserError(self.out, problem, "give another folder as --out")
            return Recipe(**kept)
        recipe = self._choose(inventory, splits, self._clips_of_store()[1])
        record.keep("recipe", recipe.record)
        return recipe

    def _fitting(self, recipe: Any) -> list[Step]:
        from splavu.protect.steps import Step

        common = ["--raw", str(self.raw), "--subjects", str(self.subjects)]
        inputs = [self.raw, self.subjects]
        if recipe.with_actions:
            common += ["--labels", str(self.args.actions)]
            inputs.append(self.args.actions)
        codes = ["fit", "quantizer", *common, "--bits", str(recipe.bits), "--floor", "vector"]
        codes += ["--min-subjects", str(recipe.min_subjects), "--out", str(self.codes)]
        if recipe.rank is None or self.static is None:
            return [Step(codes, inputs, [self.codes], is_kept=True)]
        eraser = ["fit", "eraser", *common, "--static", str(self.static), "--rank", str(recipe.rank)]
        return [
            Step([*eraser, "--out", str(self.eraser)], [*inputs, self.static], [self.eraser], is_kept=True),
            Step([*codes, "--after", str(self.eraser)], [*inputs, self.eraser], [self.codes], is_kept=True),
        ]

    def _release(self, record: Record) -> None:
        from splavu.protect.steps import Step

        argv = ["anonymize", "--aam", str(self.codes), str(self.raw), str(self.released), "--keys", "secret"]
        step = Step([*argv, *self._device()], [self.raw, self.codes], [self.released, self.key_map])
        self._do(record, step)

    def _audit(self, record: Record, decides: bool) -> int:
        from splavu.protect.steps import Step

        if self.table is None:
            return 0
        if not decides:
            return UNDECIDED
        argv = ["audit", "--raw", str(self.raw), "--released", str(self.released), "--keys", str(self.key_map)]
        argv += ["--labels", str(self.private), "--aam", str(self.codes), "--out", str(self.evidence.parent)]
        argv += [] if self.args.full_audit else ["--quick"]
        argv += ["--attributes", self.args.attributes] if self.args.attributes else []
        inputs = [self.raw, self.released, self.key_map, self.private, self.codes]
        return self._do(record, Step([*argv, *self._device()], inputs, [self.evidence], allowed=(0, 3, 4)))

    def _probe(self, record: Record, inventory: Inventory, splits: Mapping[str, str]) -> None:
        from splavu.protect.recipe import FEWEST_OTHERS
        from splavu.protect.steps import Step

        if self.args.actions is None:
            return
        for name, keys in (
            ("fit to", [key for key in inventory.actions if splits[key] != "test"]),
            ("test on", [key for key in inventory.actions if splits[key] == "test"]),
        ):
            if len(inventory.owners(keys)) < FEWEST_OTHERS or len({inventory.actions[key] for key in keys}) < 2:
                self.unknown.append(f"What the release costs in use: too few subjects or actions to {name}.")
                return
        argv = ["probe", "--raw", str(self.raw), "--released", str(self.released), "--keys", str(self.key_map)]
        argv += ["--labels", str(self.args.actions), "--subjects", str(self.subjects), "--out", str(self.use)]
        inputs = [self.raw, self.released, self.key_map, self.args.actions, self.subjects]
        self._do(record, Step(argv, inputs, [self.use]))

    # telling

    def _page(self, record: Record, inventory: Inventory, splits: Mapping[str, str], recipe: Any) -> None:
        import json

        from splavu.audit.evidence import read_evidence
        from splavu.data.key_map import read_key_map
        from splavu.protect.page import MARKS, Protection, released_vectors, write_page
        from splavu.runtime import checkpoints
        from splavu.runtime.files import check_target
        from splavu.stores import open_features

        path = self.out / PAGE
        check_target(path, inputs=_inputs(self.args), marks=MARKS)
        names = {step.argv[0] for step in self.steps}
        secret = self.released.with_name(f"{self.released.name}.secret")
        owned = [self.raw, self.static, self.subjects, self.private, self.eraser, self.codes, secret, self.key_map]
        vectors = released_vectors(self.released, read_key_map(self.key_map), inventory)
        protection = Protection(
            inventory=inventory,
            splits=splits,
            recipe=recipe,
            encoder=str(open_features(self.raw).attributes.get("encoder", "unknown")),
            released=self.released.name,
            owned=[one.name for one in owned if one is not None and one.exists()],
            vectors=vectors,
            guarantees=checkpoints.read(self.codes)["fitted"]["guarantees"],
            commands=[step.command for step in self.steps],
            evidence=read_evidence(self.evidence) if "audit" in names else None,
            use=json.loads(self.use.read_text(encoding="utf-8")) if "probe" in names else None,
            unknown=self.unknown,
            failures=self.failures,
        )
        write_page(path, protection, inputs=_inputs(self.args))
        share = f"{vectors.vectors} vectors, {100 * vectors.share:.0f} % of them of one {recipe.unit} alone"
        print(f"\nrelease: {self.released} ({share})\nreport:  {path}")
