"""Scoliosis1K (arXiv 2407.05726): from the trees that its authors release to a prepared ArrayRecord data set."""
