"""`python -m scoliojax.interop.parity`: the distance between scoliojax and PyTorch, measured."""
