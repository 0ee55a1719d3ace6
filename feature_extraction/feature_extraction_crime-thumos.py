"""The old name of `long_videos.py`, with the same command line."""

from feature_extraction.long_videos import main
from splavu.runtime import cli

if __name__ == "__main__":
    cli.run(main)
