"""`python -m splavu COMMAND`: what a practitioner calls by name."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

from splavu._version import __version__
from splavu.audit.report import page as audit_html
from splavu.commands import audit as audit_command
from splavu.commands import fit as fitting
from splavu.errors import UserError
from splavu.runtime import cli
from splavu.runtime.environment import pick_device
from splavu.runtime.files import check_target, files_of


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="splavu", description=__doc__, epilog=cli.EXIT_CODES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)

    synthesize = commands.add_parser("synthesize", help="render the synthetic world in the real data sets' layouts")
    synthesize.add_argument("--out", type=Path, required=True, help="data root to write below")
    synthesize.add_argument("--seed", type=int, default=0, help="same seed, same pixels (default 0)")
    synthesize.add_argument("--size", choices=("tiny", "small", "full"), default="small")
    synthesize.add_argument(
        "--scene-bias", type=float, default=0.0, help="how much the background tells the action, 0-1"
    )
    synthesize.add_argument(
        "--sets",
        default=None,
        help="comma list of hmdb51, vispr, thumos14, ucf_crime, casia_b, pa_hmdb51, vp, ntu, tsh, ucf101 "
        "(default the first two)",
    )
    synthesize.add_argument("--workers", type=int, default=None, help="processes (default: one a core)")
    cli.add_common(synthesize)

    anonymize = commands.add_parser(
        "anonymize",
        help="raw features -> released features",
        usage="splavu anonymize --aam ADAPTER IN OUT [--unit video] [--column NAME] [--keep NAME,NAME] [...]",
        description="Released features out of raw ones, in the same format. Killed, the same command goes on.",
    )
    anonymize.add_argument(
        "store", metavar="IN", type=Path, help="HDF5 store, folder of .npy (one a video), or Parquet"
    )
    anonymize.add_argument("target", metavar="OUT", type=Path, nargs="?", help="of the same format, to be written")
    anonymize.add_argument(
        "--aam", required=True, help="trained anonymizer: checkpoint, folder of save_pretrained, or hub name"
    )
    anonymize.add_argument("--out", type=Path, help="another way to give OUT")
    anonymize.add_argument(
        "--unit",
        choices=("alone", "video"),
        default="alone",
        help="each feature alone (default), or each long video as one sequence, as detectors were co-trained",
    )
    anonymize.add_argument("--column", help="Parquet: the features' column (default: the only one of float lists)")
    anonymize.add_argument(
        "--keep", default="", help="Parquet: comma list of columns to carry along (default: none, labels are private)"
    )
    anonymize.add_argument("--num-heads", type=int, default=8, help="of a published checkpoint, which doesn't say")
    cli.add_common(anonymize)

    export = commands.add_parser("export", help="trained anonymizer -> ONNX, checked against PyTorch")
    export.add_argument("target", metavar="OUT.onnx", type=Path)
    export.add_argument("--aam", required=True, help="trained anonymizer, as for anonymize")
    export.add_argument("--opset", type=int, default=18, help="of ONNX (default 18)")
    export.add_argument("--num-heads", type=int, default=8, help="as for anonymize")
    cli.add_common(export)

    report = commands.add_parser("report", help="run folders -> report.md with figures")
    report.add_argument("run", type=Path, help="folder that groups the runs, such as saved_models/demo")
    report.add_argument("--data", type=Path, default=None, help="data root, to show frames of its videos")
    cli.add_common(report)

    verify = commands.add_parser("verify", help="faults of feature stores, and where their features come from")
    verify.add_argument("stores", type=Path, nargs="+", metavar="STORE", help="HDF5 store, or a folder of .npy")
    verify.add_argument("--feature-dim", type=int, default=None, help="width expected (default: the encoder's)")
    cli.add_common(verify)

    audit = commands.add_parser("audit", help=audit_command.HELP, description=audit_command.__doc__)
    audit_command.add_arguments(audit)
    cli.add_common(audit)

    audit_report = commands.add_parser("audit-report", help=audit_html.HELP, description=audit_html.__doc__)
    audit_html.add_arguments(audit_report)
    cli.add_common(audit_report)

    fit = commands.add_parser("fit", help=fitting.HELP, description=fitting.__doc__)
    fitting.add_arguments(fit)
    cli.add_common(fit)

    # What lies above the library brings its commands along by name, in an entry point: nothing here imports it.
    others = {entry.name: entry for entry in metadata.entry_points(group="splavu.commands")}
    for name in others:
        commands.add_parser(name, add_help=False, help=f"of the study: python -m splavu {name} --help")
    argv = sys.argv[1:] if argv is None else list(argv)
    if argv and argv[0] in others:
        return _command(others[argv[0]])(argv[1:])

    args = parser.parse_args(argv)
    cli.start(args)
    run = {
        "synthesize": _synthesize,
        "anonymize": _anonymize,
        "export": _export,
        "report": _report,
        "verify": _verify,
        "audit": audit_command.run,
        "audit-report": audit_html.run,
        "fit": fitting.run,
    }[args.command]
    return run(args)


def _synthesize(args: argparse.Namespace) -> int:
    from splavu.synthetic.world import synthesize  # needs OpenCV and PyAV

    sets = tuple(name.strip() for name in args.sets.split(",")) if args.sets else None
    where = synthesize(
        args.out, seed=args.seed, size=args.size, scene_bias=args.scene_bias, **_given(sets=sets, workers=args.workers)
    )
    print(where)
    return 0


def _anonymize(args: argparse.Namespace) -> int:
    from splavu.release.anonymize import anonymize_store, anonymize_table
    from splavu.release.pretrained import load_pretrained
    from splavu.stores.parquet import is_parquet

    target = args.target or args.out
    if target is None or (args.target and args.out):
        raise UserError("OUT", "is not given" if target is None else "is given twice", "anonymize --aam ADAPTER IN OUT")
    check_target(target, inputs=[args.store, *files_of(args.aam)], is_folder=args.store.is_dir())
    anonymizer = load_pretrained(args.aam, num_heads=args.num_heads)
    device = pick_device(args.device)
    keep = [name.strip() for name in args.keep.split(",") if name.strip()]
    if is_parquet(args.store):
        if args.unit == "video":
            raise UserError("--unit", "'video' is for folders of long videos", "leave it out: features are alone")
        table = anonymize_table(args.store, target, anonymizer, column=args.column, keep=keep, device=device)
        print(f"{target}: {table.num_rows} rows, '{table.column}' anonymized one feature at a time")
        if table.dropped:
            print(f"left behind: {', '.join(table.dropped)} (--keep carries a column along; think of private labels)")
        return 0
    if args.column or keep:
        raise UserError(args.store, "is no Parquet file: it has no columns", "leave out --column and --keep")
    count = anonymize_store(args.store, target, anonymizer, unit=args.unit, device=device)
    how = "one feature at a time" if args.unit == "alone" else "each video as one sequence"
    print(f"{target}: {count} keys, anonymized {how}")
    return 0


def _export(args: argparse.Namespace) -> int:
    from splavu.release.onnx import export_onnx  # needs onnx, onnxscript and onnxruntime
    from splavu.release.pretrained import load_pretrained

    inputs = files_of(args.aam)
    check_target(args.target, inputs=inputs)
    anonymizer = load_pretrained(args.aam, num_heads=args.num_heads)
    exported = export_onnx(anonymizer, args.target, opset=args.opset, inputs=inputs)
    print(exported)
    return 0


def _report(args: argparse.Namespace) -> int:
    from splavu.reports.run_report import write_report  # needs Matplotlib

    report = write_report(args.run, data=args.data)
    print(f"{report.table}\nreport: {report.path}")
    return 0


def _verify(args: argparse.Namespace) -> int:
    from splavu.data.verification import described, verify_apart

    has_faults = False
    strangers: list[UserError] = []
    for path in args.stores:
        try:
            verdict = verify_apart(path, feature_dim=args.feature_dim, quiet=args.quiet)
        except UserError as error:
            strangers.append(error)
            continue
        print("\n".join(described(verdict)))
        has_faults |= bool(verdict.faults)
    for error in strangers[:-1]:
        print(f"splavu: {error}", file=sys.stderr)
    if strangers:
        raise strangers[-1]
    return 1 if has_faults else 0


def _command(entry: metadata.EntryPoint) -> Callable[[Sequence[str]], int]:
    try:
        return entry.load()
    except (ImportError, AttributeError) as error:
        raise UserError(
            entry.name, f"its program can't be loaded ({error})", "install again: pip install -e ."
        ) from error


def _given(**options: object) -> dict[str, object]:
    return {name: value for name, value in options.items() if value is not None}


if __name__ == "__main__":
    cli.run(main)
