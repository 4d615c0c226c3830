"""`python -m scoliojax.study`: networks and class ratios compared on the same walks."""

MODELS = ("sconet", "sconet_mt", "sconet_mt_ske", "drf")
DEFAULT = ("sconet", "sconet_mt")  # what the paper's study compares
