"""A trained network as one function with constant parameters, and its description."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data_pipelines.poses.asymmetry import MEASURES, UNITS, asymmetry_vector
from data_pipelines.poses.joints import JOINTS, PAIRS
from data_pipelines.poses.maps import BODY_HEIGHT, CANVAS, NEIGHBOURS, skeleton_maps
from data_pipelines.poses.synthetic import walk_poses
from data_pipelines.schema import CLASSES, FRAME_SIZE, SIDE_CUT, SILHOUETTES, frame_shape
from data_pipelines.silhouettes import cut_sides
from data_pipelines.synthetic import walk
from scoliojax import build
from scoliojax.errors import RunError
from scoliojax.export import ARTEFACT, CARD, DESCRIPTION, PLATFORMS, REFERENCE
from scoliojax.files import whole_folder, write_json
from scoliojax.models.sconet import set_pooling
from scoliojax.runs import environment
from scoliojax.runs.run import TrainedNetwork
from scoliojax.scores import model_card, reference
from scoliojax.scores.assurance import bounds_of
from scoliojax.scores.evaluation import find_metrics
from scoliojax.scores.metrics import refuse_not_finite
from scoliojax.scores.model_card import FRAMES
from scoliojax.scores.reference import BEYOND, SHARE, Reference
from scoliojax.training.evaluate import make_eval_step

BLOCK = 16  # frames computed at a time
TOLERANCE = 1e-5  # largest difference of the logits from those of the package
WALKS = (24, 7, 15)  # frames of the synthetic walks in the check of an export
ASYMMETRY = (
    "the postural asymmetry vector of each walk, not normalised: of "
    f"{', '.join(PAIRS)} (left and right) the {', the '.join(MEASURES)} ({', '.join(UNITS)}), the mean over the frames without "
    "outliers, 0 where there is none; data_pipelines.poses.asymmetry.asymmetry_vector(poses) computes it. The ranges of the "
    "training part are in the network"
)


def frozen(network: TrainedNetwork) -> Callable[..., dict[str, jax.Array]]:
    """The evaluation of a network as a function of its `inputs`, with constant parameters.

    Frames pass through the backbone in blocks of a fixed size. So the number of sequences and frames may be open while every
    convolution has a fixed shape, and the same algorithm and rounding as in the package; a long sequence needs memory only for
    its feature maps.
    """

    def classify(frames: jax.Array, frame_mask: jax.Array, asymmetry: jax.Array | None = None) -> dict[str, jax.Array]:
        n, s, *frame = frames.shape
        with jax.ensure_compile_time_eval():  # everything that depends on parameters alone
            net = network.module()
            blocks = (n * s + BLOCK - 1) // BLOCK
            padded = jnp.pad(frames.reshape(-1, *frame), ((0, blocks * BLOCK - n * s), *[(0, 0)] * len(frame)))  # b ...
            blocked = padded.reshape(-1, BLOCK, 1, *frame)  # blocks BLOCK 1 ...
            features = jax.lax.map(lambda block: net.pool(block, train=False), blocked)  # blocks BLOCK 16 11 c
            features = features.reshape(-1, *features.shape[2:])[: n * s]  # ns 16 11 c
            pooled = set_pooling(features.reshape(n, s, *features.shape[1:]), frame_mask)  # n 16 11 c
            output = net.head(pooled, asymmetry, train=False)
        strip_logits = output.logits  # n p k
        return {"embeddings": output.embeddings, "logits": jnp.mean(strip_logits, axis=1), "strip_logits": strip_logits}

    return classify


def serialise(network: TrainedNetwork) -> bytes:
    """The frozen function for any number of sequences and frames, on every platform of `PLATFORMS`."""
    jax.config.update("jax_hlo_source_file_canonicalization_regex", ".*/")  # keeps the user's paths out of the file
    n, s = jax.export.symbolic_shape("n, s")
    sizes = {"n": n, "s": s}
    ports = inputs(network.config)
    shapes = [jax.ShapeDtypeStruct([sizes.get(size, size) for size in port["shape"]], port["dtype"]) for port in ports]
    return bytes(jax.export.export(jax.jit(frozen(network)), platforms=PLATFORMS)(*shapes).serialize())


def synthetic_inputs(config: build.Config) -> list[jax.Array]:
    """What a network of this config reads of `WALKS`."""
    data = config.data
    frames = np.zeros((len(WALKS), max(WALKS), *frame_shape(data.modality)), np.uint8)  # n s ...
    vectors = np.zeros((len(WALKS), len(PAIRS), len(MEASURES)), np.float32)  # n 8 3
    frame_mask = np.arange(max(WALKS)) < np.array(WALKS)[:, None]  # n s
    for row, length in enumerate(WALKS):
        if data.modality == SILHOUETTES:
            clip = walk(row, length, seed=0)[1]  # s 64 64
        else:
            poses = walk_poses(row, length, seed=0)  # s 17 3
            clip, vectors[row] = skeleton_maps(poses, **data.maps), asymmetry_vector(poses)  # s 2 64 64
        frames[row, :length] = cut_sides(clip)  # s ...
    return [jnp.asarray(array) for array in (frames, frame_mask, vectors)[: 2 + build.reads_asymmetry(config)]]


def largest_difference(artefact: bytes, network: TrainedNetwork) -> tuple[float, float | None]:
    """The largest difference of the artefact from the package on a batch of synthetic walks: of logits, and of distances.

    That of distances is relative, and None where the network has no reference. Raises `RunError` where the network's logits are
    not finite.
    """
    arguments = synthetic_inputs(network.config)
    output = make_eval_step(network.graph)(network.state.params, network.state.batch_stats, *arguments)
    expected = np.asarray(output.logits)  # n p k
    refuse_not_finite(expected.mean(axis=1), [f"synthetic walk {row}" for row in range(len(WALKS))])
    exported = jax.export.deserialize(bytearray(artefact)).call(*arguments)
    differences = [exported["strip_logits"] - expected, exported["logits"] - expected.mean(axis=1)]
    difference = float(max(np.max(np.abs(difference)) for difference in differences))
    if network.reference is None:
        return difference, None
    found, distance = (network.reference.distance(np.asarray(one)) for one in (exported["embeddings"], output.embeddings))
    return difference, float(np.max(np.abs(found / distance - 1.0)))


def _array(name: str, dtype: str, meaning: str, *shape: str | int) -> dict[str, Any]:
    return {"name": name, "shape": shape, "dtype": dtype, "meaning": meaning}


def inputs(config: build.Config) -> list[dict[str, Any]]:
    """The arguments of the exported function, in their order: name, shape, type and meaning of each."""
    modality = config.data.modality
    meaning = (
        "walks of s frames, 0 background to 255 person"
        if modality == SILHOUETTES
        else "walks of s frames, of each the limbs and the joints, 0 to 255; see preprocessing"
    )
    name = FRAMES[modality].replace(" ", "_")
    ports = [
        _array(name, "uint8", meaning, "n", "s", *frame_shape(modality)),
        _array("frame_mask", "bool", "False where a frame is padding; a walk with no True gets nan", "n", "s"),
    ]
    if build.reads_asymmetry(config):
        ports.append(_array("asymmetry", "float32", ASYMMETRY, "n", len(PAIRS), len(MEASURES)))
    return ports


def _preprocessing(config: build.Config) -> str:
    """How the frames of a walk are made."""
    if config.data.modality == SILHOUETTES:
        return (
            "One person walking towards or away from the camera, as a binary mask in every frame: cut to the rows that the "
            f"person takes, scaled (bicubic) to {FRAME_SIZE} rows with the proportions kept, moved so that the column that "
            f"halves the person's area is in the middle of {FRAME_SIZE} columns, and {SIDE_CUT} columns cut from each side; "
            "frames without a person are left out."
        )
    maps = config.data.maps
    box = "limbs and joints each by themselves" if maps.align == "each" else "limbs and joints by one box"
    face = "nose, eyes and ears left out; " if maps.body_only else ""
    return (
        "One person walking towards or away from the camera, as a pose in every frame: x to the right, y down in pixels, and "
        f"confidence 0 to 1 of COCO's joints ({', '.join(JOINTS)}; left and right are the walker's own), 0, 0, 0 where a joint "
        f"was not found; {face}coordinates that are 0 taken from the {NEIGHBOURS} frames most alike; the middle of the hips "
        f"moved to the middle of {CANVAS} x {CANVAS} pixels, the extent of the joints scaled to {BODY_HEIGHT:g} rows; limbs as "
        f"ridges and joints as spots, Gaussians of {maps.sigma:g} pixels as high as the confidence; cut to the rows that are "
        f"not empty, {box}, to as many columns around the middle, scaled (area) to {FRAME_SIZE} x {FRAME_SIZE}, and {SIDE_CUT} "
        f"columns cut from each side. skeleton_maps(poses, align={maps.align!r}, body_only={maps.body_only}, "
        f"sigma={maps.sigma:g}) of data_pipelines.poses.maps does all but the last."
    )


def _typicality(kept: Reference | None) -> dict[str, Any] | None:
    """How a user of the export computes the distance of a walk from training, and its bounds."""
    if kept is None:
        return None
    return {
        "file": REFERENCE,
        "load": f"numpy.load('{REFERENCE}')",
        "distance": "mean over strips and channels of square(einsum('npc,pcd->npd', embeddings - mean, factor)), in float64",
        "usual": "numpy.interp(log(frames), log(lengths), usual), with frames the number of True in the walk's frame_mask; "
        f"{SHARE:.0%} of walks like those of training are at most that far away",
        "bound": f"{BEYOND:g} * usual; beyond it, as where the distance is no number, the network's answer means nothing",
        "bounds": [bounds._asdict() for bounds in bounds_of(kept)],
        "synthetic": kept.synthetic,
        "notes": kept.notes,
    }


def describe(network: TrainedNetwork, artefact: bytes, difference: float, apart: float | None) -> dict[str, Any]:
    """The content of `network.json`: inputs, outputs, classes, probabilities and origin of the network.

    `difference` and `apart`: from `largest_difference`.
    """
    config, kept = network.config.to_dict(), network.calibration
    temperature = kept.temperature if kept else None
    here = environment.environment()
    strips, ports = sum(config["model"]["strips"]), inputs(network.config)
    names = ", ".join(port["name"] for port in ports)
    return {
        "about": "Research software, not a medical device and not a diagnosis. See MODEL_CARD.md.",
        "synthetic": network.synthetic,
        "artefact": {
            "file": ARTEFACT,
            "format": "jax.export (StableHLO)",
            "load": f"jax.export.deserialize(bytearray(open('{ARTEFACT}', 'rb').read())).call({names})",
            "platforms": PLATFORMS,
            "bytes": len(artefact),
            "sha256": hashlib.sha256(artefact).hexdigest(),
        },
        "network": {
            "name": model_card.network(config),
            "digest": network.digest,
            "step": network.step,
            "precision": config["precision"],
            **{key: value for key, value in config["model"].items() if key != "name"},
        },
        "inputs": ports,
        "outputs": [
            _array("logits", "float32", "what decides, the mean over strips: the largest wins", "n", len(CLASSES)),
            _array("strip_logits", "float32", "cosines of each strip, top to bottom", "n", strips, len(CLASSES)),
            _array("embeddings", "float32", "of each strip; see typicality", "n", strips, config["model"]["embedding_dim"]),
        ],
        "sizes": "any n and s from 1",
        "preprocessing": _preprocessing(network.config),
        "classes": CLASSES,
        "probabilities": {
            "rule": "softmax(logits * scale / temperature)",
            "scale": network.scale,
            "temperature": temperature or 1.0,
            "calibrated": temperature is not None,
        },
        "operating_point": {
            "rule": f"refer where 1 - probability of {CLASSES[0]} is at least the threshold",
            **{key: getattr(kept, key) for key in ("threshold", "wanted_sensitivity", "sensitivity", "specificity")},
            "chosen_on": f"{kept.sequences} validation sequences of {kept.subjects} subjects",
            "synthetic": kept.synthetic,
        }
        if kept and kept.threshold is not None
        else None,
        "typicality": _typicality(network.reference),
        "checked": {
            "largest_difference": difference,
            "largest_relative_difference_of_distance": apart,
            "meaning": f"from the package's evaluation, on {len(WALKS)} synthetic walks; each at most {TOLERANCE:g}",
            "device": jax.local_devices()[0].device_kind,
        },
        "versions": {"python": here["python"], **here["packages"], "git_commit": here["git_commit"]},
    }


def write_export(folder: Path, network: TrainedNetwork) -> dict[str, Any]:
    """Write the complete folder or nothing, and replace an earlier export; returns the content of `network.json`.

    Raises `RunError` when the artefact's logits, or the distances of walks, differ from those of the package.
    """
    config, trained_in = network.config.to_dict(), environment.read_environment(network.directory)
    title = f"{model_card.network(config)}, step {network.step} ({ARTEFACT})"
    card = model_card.model_card(title, config, trained_in, find_metrics(network.directory, network.step))
    artefact = serialise(network)
    difference, apart = largest_difference(artefact, network)
    for what, found in (("logits", difference), ("distances from training", apart or 0.0)):
        if not found <= TOLERANCE:
            raise RunError(
                f"the exported network's {what} differ from the package's by {found:.1e}, more than {TOLERANCE:g}, on this "
                f"{jax.local_devices()[0].platform}; nothing was written. Export on a CPU (JAX_PLATFORMS=cpu)"
            )
    description = describe(network, artefact, difference, apart)
    with whole_folder(folder) as fresh:
        (fresh / ARTEFACT).write_bytes(artefact)
        (fresh / CARD).write_text(card, encoding="utf-8")
        if network.reference:
            reference.write(fresh / REFERENCE, network.reference)
        write_json(fresh / DESCRIPTION, description)
    return description
