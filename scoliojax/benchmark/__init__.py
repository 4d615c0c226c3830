"""Speed and memory of all parts of a run, compared with PyTorch if it is installed: `python -m scoliojax.benchmark`."""
