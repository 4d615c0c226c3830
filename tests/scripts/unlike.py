"""How well the distance from training tells other things from walkers: `python -m tests.scripts.unlike RUN [--masks FOLDER]`.

For cuts of 15, 30 and 60 frames: the share of the test walks, and of what is no walk of this kind, beyond both bounds, and the
AUROC against the test walks. The sets: people (`expected/` of the folder that the tests use), masks that were given (`--masks`,
`*.npz` with `masks`), drawn masks that show no walk, and noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from data_pipelines.silhouettes import cut_sides, normalise_sequence
from scoliojax.runs.cohort import Cohort
from scoliojax.runs.command import configure_runtime
from scoliojax.runs.evaluation import calibrate
from scoliojax.runs.reference import refer
from scoliojax.runs.run import TrainedNetwork, open_run
from scoliojax.scores.assurance import bounds_of
from scoliojax.scores.metrics import Ranking
from scoliojax.scores.reference import Reference
from tests.conftest import shared_folder
from tests.data_pipelines.non_walks import NON_WALKS

LENGTHS, BATCH, EACH = (15, 30, 60), 8, 6  # frames; clips of a call; drawn masks of each kind


def embed(network: TrainedNetwork, clips: list[np.ndarray], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the first frames of clips `[s, 64, 44]`, and how many frames there were: `[n, p, c]`, `[n]`."""
    found, counts = [], np.array([min(len(clip), frames) for clip in clips])
    for first in range(0, len(clips), BATCH):
        some = clips[first : first + BATCH]
        silhouettes = np.zeros((BATCH, frames, 64, 44), np.uint8)  # n s 64 44
        mask = np.zeros((BATCH, frames), bool)  # n s
        mask[:, 0] = True
        for place, clip in enumerate(some):
            silhouettes[place, : len(clip)] = clip[:frames]
            mask[place, : len(clip)] = True
        state = network.state
        output = network.run.eval_step(state.params, state.batch_stats, silhouettes, mask)  # pyright: ignore[reportArgumentType]
        found.append(np.asarray(output.embeddings)[: len(some)])
    return np.concatenate(found), counts


def normalised(masks: Iterable[np.ndarray]) -> list[np.ndarray]:
    """Silhouettes `[s, 64, 44]` of masks, where any frame is left."""
    return [cut_sides(clip) for one in masks if len(clip := normalise_sequence(np.asarray(one, np.uint8)))]


def people(folder: Path) -> list[np.ndarray]:
    return [cut_sides(load_silhouettes(path)) for path in sorted(folder.rglob("*.pkl"))]


def noise(count: int = 60) -> list[np.ndarray]:
    """Silhouettes of noise: pixels and blobs of a size drawn for each, new in every frame."""
    clips = []
    for seed in range(count):
        rng = np.random.default_rng(seed)
        size = int(rng.choice([1, 2, 4]))
        coarse = rng.random((60, 64 // size, 44 // size)) < rng.uniform(0.1, 0.7)  # s h/size w/size
        clips.append(coarse.repeat(size, axis=1).repeat(size, axis=2).astype(np.uint8) * 255)  # s 64 44
    return clips


def auroc(one: np.ndarray, other: np.ndarray) -> float:
    """The probability that a distance of `other` is the larger one."""
    yes = np.repeat([False, True], [len(one), len(other)])
    return float(Ranking(yes, np.concatenate([one, other])).scores(np.ones((1, len(yes))))["auroc"][0])


def table(reference: Reference, sets: dict[str, list[np.ndarray]], network: TrainedNetwork) -> None:
    """A row for each set; the first one is that of the test walks."""
    print("| set | walks | " + " | ".join(f"{frames} frames" for frames in LENGTHS) + " |")
    print("|---" * (2 + len(LENGTHS)) + "|")
    walkers: dict[int, np.ndarray] = {}
    for name, clips in sets.items():
        cells = []
        for frames in LENGTHS:
            embeddings, counts = embed(network, clips, frames)
            distance, usual = reference.distance(embeddings), reference.usual_at(counts)
            first = walkers.setdefault(frames, distance)
            judged = [reference.judge(one, int(count)) for one, count in zip(distance, counts, strict=True)]
            shares = [np.mean([getattr(one, kind) for one in judged]) for kind in ("unlike", "beyond")]
            said = f"{shares[0]:.3f} / {shares[1]:.3f}"
            ratio = distance / usual
            said += f", {np.median(ratio):.2f} to {ratio.max():.2f}" if first is distance else f", {auroc(first, distance):.4f}"
            cells.append(said + ("" if first is distance else f", from {ratio.min():.2f}"))
        print(f"| {name} | {len(clips)} | " + " | ".join(cells) + " |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--masks", type=Path, help="folder of .npz files that show no walk")
    parser.add_argument("--kinds", action="store_true", help="a row for each kind of drawn masks")
    args = parser.parse_args()
    configure_runtime()
    network = open_run(args.run.absolute()).network("newest")
    cohort = Cohort(network.config)
    calibrate(network, cohort)
    reference = refer(network, cohort)
    assert reference is not None, "a run with ten validation subjects is needed"
    print("usual distance:", ", ".join(f"{one.usual:.3f} at {one.frames} frames" for one in bounds_of(reference)))
    print(
        "cells: share beyond usual / beyond the bound; test walks: median and largest distance in units of usual; others: AUROC"
    )
    drawn = {
        kind: normalised(make(np.random.default_rng(seed), 60) for seed in range(EACH)) for kind, (make, _) in NON_WALKS.items()
    }
    given = sorted(args.masks.glob("*.npz")) if args.masks else []
    table(
        reference,
        {
            "synthetic test walks": [cohort.cache(int(row)) for row in cohort.partition.test],
            "people (real)": people(shared_folder("SCOLIOJAX_SILHOUETTES", "silhouettes") / "expected"),
            **({"masks given": normalised(np.load(path)["masks"] * np.uint8(255) for path in given)} if given else {}),
            **({} if args.kinds else {"drawn, no walk": [clip for clips in drawn.values() for clip in clips]}),
            **(drawn if args.kinds else {}),
            "noise": noise(),
        },
        network,
    )


if __name__ == "__main__":
    main()
