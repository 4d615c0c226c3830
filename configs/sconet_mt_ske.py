"""ScoNet-MT-ske: ScoNet-MT on skeleton maps, which are drawn from poses (arXiv 2407.05726; maps of arXiv 2311.13444).

    python -m scoliojax.main --config configs/sconet_mt_ske.py --config.data.root=PREPARED --workdir runs/sconet_mt_ske

PREPARED holds poses (`python -m data_pipelines.prepare --poses POSES`). The variant `quickstart` trains a small network on the
skeletons of synthetic walkers:

    python -m scoliojax.main --config configs/sconet_mt_ske.py:quickstart --workdir runs/quickstart_ske
"""

from ml_collections import ConfigDict

from configs import sconet_mt


def get_config(variant: str = "") -> ConfigDict:
    """The recipe. `variant`: "" as published, "quickstart" small."""
    config = sconet_mt.get_config(variant)
    data, train = config.data, config.train
    data.modality = "skeletons"
    data.cache_gigabytes = 3.0  # a map has two channels; those of the whole of Scoliosis1K are 2.6
    if variant == "quickstart":
        data.maps.update({"sigma": 2.5, "body_only": True})  # thin lines show the walkers' signs best
        data.augment.update({"shift": 0, "dilation": 0.0, "erosion": 0.0, "tilt": 0.0, "cut_out": 0.0})
        data.frames_per_clip = 16  # the maximum over few thin lines is unlike that over a whole walk
        config.optimizer.milestones = (260, 370, 410)
        train.steps = 420
    return config
