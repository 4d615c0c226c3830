"""How fast everything is that a run does, here, beside PyTorch where it is installed: `python -m scoliojax.benchmark`."""
