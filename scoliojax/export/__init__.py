"""`python -m scoliojax.export`: a trained network for other runtimes."""

ARTEFACT, DESCRIPTION, CARD = "network.stablehlo", "network.json", "MODEL_CARD.md"
PLATFORMS = ("cpu", "cuda", "tpu")
