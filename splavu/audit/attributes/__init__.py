"""Attacks on private attributes, by threat model."""
