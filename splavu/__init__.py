"""SPLAVU: train, apply and audit anonymizers on the features of a frozen video encoder."""

__version__ = "0.1.0"
