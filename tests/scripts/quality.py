"""How well walks are told from what is none, by hand: `python -m tests.scripts.quality [--shared ../shared] [--seeds 8]`.

Prints the tables of docs/screening.md: refusals and flags on the 225 walkers of the quickstart's test part and on real walks,
as they are, cut, and changed as a camera changes them; then every kind of `non_walks` (the rule was chosen on it), `held_out`
(three rules were added after it) and `unseen` (nothing was); then the masks of the trials, and the time. The masks of two
synthetic walkers, and of each real walk and the next, make the kinds that need walkers.
"""

import argparse
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import cv2
import numpy as np

from configs import sconet_mt
from data_pipelines.gait import FEW_CYCLES
from data_pipelines.quality import judge
from data_pipelines.silhouettes import normalise_sequence
from data_pipelines.splits import make_partition
from data_pipelines.synthetic import draw_walker, render_walk, synthetic_walkers
from tests.data_pipelines.held_out import DRAWN, OF_WALKS
from tests.data_pipelines.non_walks import NON_WALKS, walker
from tests.data_pipelines.unseen import UNSEEN

HEAD = "| tried | refused | right reason | told | findings |\n|---|---|---|---|---|---|"
SQUARE = np.ones((3, 3), np.uint8)
CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda walk: walk,
    "shifted": lambda walk: np.roll(walk, 1, axis=2),
    "mirrored": lambda walk: walk[:, :, ::-1],
    "dilated": lambda walk: np.stack([cv2.dilate(frame, SQUARE) for frame in walk]),
    "eroded": lambda walk: np.stack([cv2.erode(frame, SQUARE) for frame in walk]),
    "tilted left": lambda walk: tilted(walk, 3),
    "tilted right": lambda walk: tilted(walk, -3),
    "every second": lambda walk: walk[::2],
}


def tilted(walk: np.ndarray, degrees: float) -> np.ndarray:
    matrix = cv2.getRotationMatrix2D((31.5, 31.5), degrees, 1)
    return np.stack([cv2.warpAffine(frame, matrix, (64, 64)) for frame in walk])  # s 64 64


def test_walks() -> list[np.ndarray]:
    """The quickstart's test part: uint8 `[60, 64, 64]` each."""
    data = sconet_mt.get_config("quickstart").data
    walkers = synthetic_walkers(data.synthetic.subjects, data.synthetic.frames)
    part = make_partition(walkers, data.partition, data.validation_fraction)
    return [walkers.read(int(row)) for row in part.test]


def real_walks(folder: Path) -> list[np.ndarray]:
    """The real walks without the one of edge cases."""
    return [pickle.loads(path.read_bytes()) for path in sorted(folder.glob("expected/0*/*/*/*.pkl"))]


def real_pairs(folder: Path) -> list[list[np.ndarray]]:
    """Masks of each real walk and the next, one height in one frame: pairs of uint8 `[s, 140, 140]`."""
    walks = []
    for path in real_walks(folder):
        large = [np.pad(cv2.resize(frame, (128, 128)), 6) for frame in path]
        walks.append(np.stack(large))
    frames = min(map(len, walks))
    return [[one[:frames], other[:frames]] for one, other in zip(walks, [*walks[1:], walks[0]], strict=True)]


def report_walks(name: str, walks: list[np.ndarray], cuts: int) -> None:
    """Print the rows of a set of walks; as many pieces of each are looked at as `cuts`, where they fit."""
    for frames in (60, 30, 15):
        cut = [walk[start : start + frames] for walk in walks for start in range(0, max(len(walk) - frames, 0) + 1, 15)[:cuts]]
        for change, how in CHANGES.items():
            judged = [judge(np.ascontiguousarray(how(walk))) for walk in cut]
            refused = sum(bool(one.grave) for one in judged)
            flagged = sum(any(f.name != FEW_CYCLES and not f.grave for f in one.findings) for one in judged)
            few = sum(any(f.name == FEW_CYCLES for f in one.findings) for one in judged)
            line = f"| {name} | {frames} | {change} | {len(cut)} | {refused} | {flagged} | {few} |"
            print(line, dict(Counter(f.name for one in judged for f in one.grave)) if refused else "", flush=True)


def report_kind(name: str, right: set[str], walks: Iterable[np.ndarray]) -> np.ndarray:
    """Print the row of a kind; numbers tried, refused, refused for a right reason, flagged or refused."""
    judged = [judge(walk) for walk in walks]
    named = Counter(finding.name + ("" if finding.grave else " (flag)") for one in judged for finding in one.findings)
    named.pop(f"{FEW_CYCLES} (flag)", None)
    right_reason = sum(any(finding.name in right for finding in one.grave) for one in judged)
    told = sum(any(finding.name != FEW_CYCLES for finding in one.findings) for one in judged)
    row = np.array([len(judged), sum(bool(one.grave) for one in judged), right_reason, told])  # 4
    findings = ", ".join(f"{what} {count}" for what, count in named.most_common())
    print(f"| {name} | {' | '.join(map(str, row))} | {findings} |", flush=True)
    return row


def report_kinds(title: str, kinds: dict, seeds: int, pairs: list[list[np.ndarray]]) -> None:
    print(f"\n| {title} {HEAD}")
    total = np.zeros(4, int)
    for name, (make, right) in kinds.items():
        drawn = []
        for seed in range(seeds):
            rng = np.random.default_rng((seed, 9))
            drawn.append(normalise_sequence(make([walker(rng), walker(rng)], rng)))
        total += report_kind(name, right, drawn)
        again = [normalise_sequence(make(pair, np.random.default_rng((0, 9)))) for pair in pairs]
        if not np.array_equal(again[0][:30], drawn[0][:30]):  # a kind that takes walks
            total += report_kind(f"{name}, real", right, again)
    print("| all |", " | ".join(map(str, total)), "| |")


def report_time() -> None:
    rng = np.random.default_rng(1)
    masks = render_walk(draw_walker(rng, 1), 300, rng)  # 300 96 72
    large = [cv2.resize(mask, (288, 384)) for mask in masks]
    walk = normalise_sequence(masks)
    for name, work in (("judge", lambda: judge(walk)), ("normalise 384 x 288", lambda: normalise_sequence(large))):
        seconds = []
        for _ in range(7):
            start = time.perf_counter()
            work()
            seconds.append(time.perf_counter() - start)
        print(f"{name}, 300 frames: {np.median(seconds):.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, default=Path("../shared"), help="folder with silhouettes and trials")
    parser.add_argument("--seeds", type=int, default=8)
    args = parser.parse_args()
    print("| walks | frames | change | walks | refused | flagged | few cycles |\n|---|---|---|---|---|---|---|")
    report_walks("test part", test_walks(), 1)
    real = args.shared / "silhouettes"
    report_walks("real", real_walks(real), 3)
    for frames in (60, 30, 15):
        print(f"\n| development, {frames} frames {HEAD}")
        for name, (make, right) in NON_WALKS.items():
            rngs = [np.random.default_rng((seed, 7)) for seed in range(args.seeds)]
            report_kind(name, right, [normalise_sequence(make(rng, frames)) for rng in rngs])
    pairs = real_pairs(real)
    report_kinds("held out", DRAWN | OF_WALKS, args.seeds, pairs)
    report_kinds("unseen", UNSEEN, args.seeds, pairs)
    print("\n| trial | findings |\n|---|---|")
    for path in sorted((args.shared / "trials" / "masks").glob("*.npz")):
        found = judge(normalise_sequence(np.load(path)["masks"].astype(np.uint8) * 255)).findings
        print(f"| {path.stem} | {', '.join(finding.name + ('' if finding.grave else ' (flag)') for finding in found)} |")
    report_time()


if __name__ == "__main__":
    main()
