"""Attacks on identity: linkage, membership, inversion."""
