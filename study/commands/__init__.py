"""The commands of the study, one module each: arguments, and `run`, which imports the work."""
