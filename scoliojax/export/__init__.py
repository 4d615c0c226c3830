"""`python -m scoliojax.export`: a trained network for other runtimes."""

ARTEFACT, DESCRIPTION, CARD, REFERENCE = "network.stablehlo", "network.json", "MODEL_CARD.md", "reference.npz"
PLATFORMS = ("cpu", "cuda", "tpu")
