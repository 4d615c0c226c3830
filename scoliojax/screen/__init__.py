"""`python -m scoliojax.screen`: from a walking video to an answer with its uncertainty."""
