"""A sweep of operating points."""
