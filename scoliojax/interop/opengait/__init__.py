"""`python -m scoliojax.interop.opengait`: OpenGait checkpoints in and out."""
