"""`python -m scoliojax.study`: the paper's class-ratio study."""

MODELS = ("sconet", "sconet_mt")
