"""`python -m scoliojax.app`: screening in a browser, on this computer alone."""
