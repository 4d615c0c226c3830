"""Scoliosis1K (arXiv 2407.05726): conversion of the released trees to a prepared ArrayRecord data set."""
