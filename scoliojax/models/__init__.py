"""The networks: `layers` (PyTorch-exact building blocks), `resnet9` (the backbone), `sconet` (the whole network)."""
