"""Drawing frames of the synthetic world."""
