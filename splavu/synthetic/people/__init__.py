"""Subjects of the synthetic world: bodies, clothes, motions."""
