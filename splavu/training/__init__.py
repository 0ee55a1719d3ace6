"""Training: learners, tasks, objectives, the loop."""
