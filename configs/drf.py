"""DRF: skeleton maps, and a posture of the walker that weighs the embeddings (MICCAI 2025, arXiv 2509.00872).

As re-implemented in public: batches of 22 sequences of each class, one clip of 20 frames of each; two clips of one class are a
positive pair; the classes have weights in the classification loss.

    python -m scoliojax.main --config configs/drf.py --config.data.root=PREPARED --workdir runs/drf

66 clips divide over 1, 2, 3, 6, 11, 22, 33 and 66 devices; for others give --config.data.subjects_per_batch=72, for example.
For the ratio 1:1:2 the weights are --config.loss.weights_by_class=0.6,1.2,1.2. The variant `quickstart` trains a small network
on synthetic walkers:

    python -m scoliojax.main --config configs/drf.py:quickstart --workdir runs/quickstart_drf
"""

from ml_collections import ConfigDict

from configs import sconet_mt_ske


def get_config(variant: str = "") -> ConfigDict:
    """The recipe. `variant`: "" as published, "quickstart" small."""
    config = sconet_mt_ske.get_config(variant)
    data, loss = config.data, config.loss
    config.model.name = "drf"
    data.balanced = True
    data.clips_per_subject = 1
    data.subjects_per_batch = 12 if variant == "quickstart" else 66
    loss.triplet_label = "class"
    if not variant:
        data.frames_per_clip = 20
        loss.weights_by_class = (0.174, 1.413, 1.413)  # for 1:1:8
    return config
