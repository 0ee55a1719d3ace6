"""Audit evidence -> terminal lines and one HTML page."""
