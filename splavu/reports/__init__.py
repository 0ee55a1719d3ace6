"""Tables and plots of plain rows, and the report of a folder of runs."""
