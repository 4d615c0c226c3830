"""Training: losses, optimiser, the step and the loop around it, checkpoints, the log, and evaluation."""
