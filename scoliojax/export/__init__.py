"""`python -m scoliojax.export`: a trained network for other runtimes."""
