"""ScoNet, the published single-task baseline: ScoNet-MT without the identity loss (arXiv 2407.05726).

    python -m scoliojax.main --config configs/sconet.py --config.data.root=PREPARED --workdir runs/sconet

The variant `quickstart` is as in `configs/sconet_mt.py`. `loss.margin` is read only once `loss.triplet_weight` is not 0.
"""

from ml_collections import ConfigDict

from configs import sconet_mt


def get_config(variant: str = "") -> ConfigDict:
    """The recipe. `variant`: "" as published, "quickstart" small."""
    config = sconet_mt.get_config(variant)
    config.loss.triplet_weight = 0.0
    return config
