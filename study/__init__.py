"""This paper's experiments: data sets, training, evaluation, sweep, comparison, reproduction."""
