"""`python -m scoliojax.posture`: the posture of a walk in numbers that need no network."""
