"""Anonymizers side by side under one audit."""
