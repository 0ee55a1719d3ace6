"""Operating points: what a release keeps and what it leaks, measured on held-out subjects."""
