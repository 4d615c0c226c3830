"""The figures of docs/evaluation.md that no user's command prints.

python -m tests.scripts.evidence                           how often intervals hold the truth; how far walkers are apart; which
                                                           strips of pixels tell the classes apart
python -m tests.scripts.evidence runs/quickstart/report    which strips drive a network, from its report
"""

import csv
import sys
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from data_pipelines.leaks import silhouette_hash
from data_pipelines.silhouettes import cut_sides
from data_pipelines.synthetic import synthetic_walkers
from scoliojax.scores.bootstrap import percentiles, subject_draws

TRUNK = slice(2, 10)  # strips of rows 8 to 39: shoulders to pelvis


def coverage(count: int, trials: int = 1000) -> tuple[float, float]:
    """Share of trials whose interval of accuracy holds the truth, 0.8: ours, and Wilson's as if sequences were independent."""
    rng = np.random.default_rng(0)
    ours = wilson = 0
    for trial in range(trials):
        subjects = np.repeat(np.arange(count), rng.integers(1, 5, count))
        right = rng.random(len(subjects)) < rng.beta(4.0, 1.0, count)[subjects]
        draws = np.concatenate(list(subject_draws(subjects, 1000, seed=trial)))
        low, high = percentiles(draws @ right / draws.sum(1), count)
        ours += low <= 0.8 <= high
        found = stats.binomtest(int(right.sum()), len(right)).proportion_ci(0.95, method="wilson")
        wilson += found.low <= 0.8 <= found.high
    return ours / trials, wilson / trials


def distances() -> None:
    """Between the hashes of different synthetic walkers, and of copies of each."""
    data = synthetic_walkers(120, 60)
    clips = [cut_sides(data.read(row)) for row in range(len(data))]
    hashes = np.stack([silhouette_hash(clip) for clip in clips])
    apart = [np.abs(one - other).mean() for row, one in enumerate(hashes) for other in hashes[:row]]
    print(f"hashes: {len(apart)} pairs of walkers at least {min(apart):.2f} apart")
    for name, copy in (("half the frame rate", lambda clip: clip[::2]), ("a tenth of the frames lost", lambda clip: clip[6:])):
        found = [np.abs(silhouette_hash(copy(clip)) - own).mean() for clip, own in zip(clips, hashes, strict=True)]
        print(f"hashes: {name}: at most {max(found):.2f}")


def pixels() -> None:
    """How well the pixels of one strip alone tell the classes apart: mean frame, and its difference from its mirror image."""
    data = synthetic_walkers(450, 60)
    means = np.stack([cut_sides(data.read(row)).mean(0) for row in range(len(data))]) / 255.0  # n h w
    mirrored = means[..., ::-1]
    pictures = np.concatenate([means + mirrored, np.abs(means - mirrored)], axis=2)  # n h 2w
    for strip in range(16):
        features = pictures[:, 4 * strip : 4 * strip + 4].reshape(len(data), -1)
        scores = []
        for seed in range(3):
            train, test = np.array_split(np.random.default_rng(seed).permutation(len(data)), 2)
            model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
            scores.append(model.fit(features[train], data.labels[train]).score(features[test], data.labels[test]))
        print(f"pixels of rows {4 * strip} to {4 * strip + 3}: accuracy {np.mean(scores):.3f} (synthetic)")


def strips(report: Path) -> None:
    """Mean contribution of the strips from shoulders to pelvis, and of the others, from a report with sixteen strips."""
    with (report / "strips.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    for name in ("negative", "neutral", "positive"):
        found = np.array([float(row["contribution"]) for row in rows if row["class"] == name])
        others = np.delete(found, range(*TRUNK.indices(16)))
        parts = f"head {found[:2].min():.3f} to {found[:2].max():.3f}, legs {found[10:].min():.3f} to {found[10:].max():.3f}"
        print(f"{name}: rows 8 to 39 {found[TRUNK].mean():.3f}, others {others.mean():.3f}; {parts}")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        strips(Path(sys.argv[1]))
    else:
        for count in (30, 100, 300):
            ours, wilson = coverage(count)
            print(f"coverage with {count} subjects: {ours:.3f}, as if independent {wilson:.3f}")
        distances()
        pixels()
