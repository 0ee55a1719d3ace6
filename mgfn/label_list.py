"""Write a list with a column of labels, for lists whose names alone say what is abnormal.

    python mgfn/label_list.py ucf-i3d.list labelled.list --datasetname UCF

A line is the name of a video and 0, or 1 with its kinds of anomaly: `Fighting003_x264 1:Fighting`. Such a list can be
renamed (`splavu rename-keys`) and still says what it said.
"""

from __future__ import annotations

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from collections.abc import Sequence

from mgfn.data.lists import KIND_OF_NAME, Entry, read_list
from mgfn.errors import InputError
from splavu.errors import as_user_errors
from splavu.runtime import cli
from splavu.runtime.files import claimed, write_bytes


@as_user_errors(InputError)
def main(argv: Sequence[str] | None = None) -> None:
    parser = cli.ArgumentParser(description=__doc__)
    parser.add_argument("list", metavar="LIST", help="a feature path a line")
    parser.add_argument("out", metavar="OUT", help="the list to be written")
    parser.add_argument("--datasetname", choices=KIND_OF_NAME, default="UCF", help="whose names they are (UCF)")
    args = parser.parse_args(argv)
    with claimed(args.out, inputs=[args.list]):
        entries = read_list(args.list, args.datasetname)
        text = "".join(f"{entry.name} {_label(entry)}\n" for entry in entries)
        write_bytes(args.out, text.encode(errors="surrogateescape"), inputs=[args.list])
    print(f"{args.out}: {len(entries)} videos, {sum(entry.is_abnormal for entry in entries)} abnormal")


def _label(entry: Entry) -> str:
    kinds = "-".join(entry.classes)
    return f"{int(entry.is_abnormal)}{f':{kinds}' if kinds else ''}"


if __name__ == "__main__":
    cli.run(main)
