"""The layouts of real data sets, filled with synthetic videos."""
