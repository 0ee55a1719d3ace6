"""This study's data sets."""
