"""Jobs: commands that are run in order, in parallel, and resumed."""
