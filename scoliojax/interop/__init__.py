"""To and from PyTorch: needs the extra `torch`, and is imported by nothing else."""
