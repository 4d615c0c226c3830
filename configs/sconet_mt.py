"""ScoNet-MT as published: Zhou et al., "Gait Patterns as Biomarkers", MICCAI 2024, arXiv 2407.05726.

Published on Scoliosis1K 1:1:8: accuracy 82.0 %, specificity 76.5 % (the authors' figures; we have no figure of our own on it).
The 76.5 % may be the share of neutral or positive children who were not called negative: the evaluation code of that time
printed recall and specificity of the class negative under the heading positive.

    python -m scoliojax.main --config configs/sconet_mt.py --config.data.root=PREPARED --workdir runs/sconet_mt

One step is 64 clips of 30 frames, 13.6 TFLOP: a recipe for accelerators. On a laptop's processor run the variant `quickstart`,
the same code at a small size on synthetic walkers, about four minutes on 2 cores:

    python -m scoliojax.main --config configs/sconet_mt.py:quickstart --workdir runs/quickstart
"""

from ml_collections import ConfigDict

VARIANTS = ("", "quickstart")


def get_config(variant: str = "") -> ConfigDict:
    """The recipe. `variant`: "" as published, "quickstart" small."""
    if variant not in VARIANTS:
        raise ValueError(f"unknown variant {variant!r}; configs/sconet_mt.py knows {', '.join(map(repr, VARIANTS))}")
    config = ConfigDict()
    config.seed = 0  # initial parameters, batches; the partition does not depend on it
    config.precision = "bfloat16"  # of the computation ("float32" | "bfloat16"); parameters and statistics stay float32

    config.data = data = ConfigDict()
    data.name = "scoliosis1k"  # "scoliosis1k" | "synthetic"
    data.modality = "silhouettes"  # what the network reads; "silhouettes" | "skeletons", which are drawn from poses
    data.root = ""  # prepared folder or released tree; empty: synthetic walkers
    data.partition = "1:1:8"  # official JSON file, or positive:neutral:negative ratio of the training part
    data.allow_missing = False  # go on without sequences that a partition file names and the data lack; --allow-missing
    data.validation_fraction = 0.0  # of the training sequences, by subject
    data.subjects_per_batch = 8  # P: sequences (the release has one per identity folder)
    data.clips_per_subject = 8  # K
    data.balanced = False  # draw as many sequences of each class, with replacement
    data.frames_per_clip = 30
    data.max_eval_frames = 720
    data.sequences_per_eval_batch = 8  # on every device
    data.loader_threads = 4
    data.share_frames = True  # a frame that several clips of a batch have drawn is computed once: the same numbers, less work
    data.cache_gigabytes = 2.0  # decoded sequences kept in memory, of every process; the whole of Scoliosis1K is 1.3
    data.augment = ConfigDict({  # what a camera might do to a training clip; all off
        "shift": 0,  # most columns to either side
        "mirror": 0.0,  # probability
        "dilation": 0.0,  # probability of one pixel more all round
        "erosion": 0.0,  # probability of one pixel less all round
        "tilt": 0.0,  # most degrees to either side, of half of the clips
        "cut_out": 0.0,  # probability of an empty rectangle
    })  # fmt: skip
    data.maps = ConfigDict({  # of skeletons alone
        "align": "each",  # "each": limbs and joints are cropped by themselves, as published | "shared": by one box
        "body_only": False,  # without the joints of the face
        "sigma": 8.0,  # width of limbs and joints, in pixels of a canvas on which the body is 85 high
    })  # fmt: skip
    data.synthetic = ConfigDict({"subjects": 240, "frames": 120})  # used where there is no root

    config.model = model = ConfigDict()
    model.name = "sconet"
    model.channels = (64, 128, 256, 512)
    model.embedding_dim = 256
    model.strips = (16,)  # levels of the horizontal pyramid, e.g. (16, 8, 4, 2, 1)

    config.loss = loss = ConfigDict()
    loss.triplet_weight = 1.0
    loss.class_weight = 1.0
    loss.triplet_label = "sequence"  # what makes two clips a positive pair; "sequence" | "class"
    loss.weights_by_class = (1.0, 1.0, 1.0)  # of negative, neutral and positive in the classification loss
    loss.margin = 0.2
    loss.scale = 16.0
    loss.label_smoothing = 0.1

    config.optimizer = optimizer = ConfigDict()
    optimizer.name = "sgd"
    optimizer.learning_rate = 0.1
    optimizer.momentum = 0.9
    optimizer.weight_decay = 5e-4  # joins the gradient before momentum, on every parameter
    optimizer.milestones = (10_000, 14_000, 18_000)
    optimizer.decay = 0.1

    config.train = train = ConfigDict()
    train.steps = 20_000
    train.log_every = 100
    train.checkpoint_every = 1_000
    train.checkpoints_to_keep = 3
    train.eval_every = 0  # on validation subjects; needs data.validation_fraction

    if variant == "quickstart":
        config.precision = "float32"
        data.name = "synthetic"
        data.partition = "1:1:1"
        data.validation_fraction = 0.3  # for calibration and operating point
        data.subjects_per_batch = 6
        data.clips_per_subject = 2
        data.frames_per_clip = 6
        data.loader_threads = 2
        data.augment = ConfigDict({"shift": 1, "mirror": 0.5, "dilation": 0.25, "erosion": 0.25, "tilt": 4.0, "cut_out": 0.05})
        data.synthetic.subjects = 450
        data.synthetic.frames = 60
        model.channels = (8, 16, 32, 64)
        model.embedding_dim = 32
        optimizer.milestones = (220, 350, 405)
        train.steps = 420
        train.log_every = 10
        train.checkpoint_every = 140
        train.eval_every = 105
    return config
