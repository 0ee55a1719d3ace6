"""Where and how a command runs: parameters, device, seeds, versions, files, run folders, checkpoints, processes."""
