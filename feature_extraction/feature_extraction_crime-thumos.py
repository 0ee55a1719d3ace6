"""The old name of `long_videos.py`, with the same command line."""

import runpy

runpy.run_module("feature_extraction.long_videos", run_name="__main__")
