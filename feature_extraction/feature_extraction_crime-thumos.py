"""The old name of `long_videos.py`, with the same command line."""

if __name__ == "__main__":  # before the imports, which take seconds
    from splavu.runtime.signals import leave_at_once

    leave_at_once()

from feature_extraction.long_videos import main
from splavu.runtime import cli

if __name__ == "__main__":
    cli.run(main)
