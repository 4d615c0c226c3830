"""A tree of the exact shape of the Scoliosis1K release, of synthetic walkers: nobody walked here.

    python -m tests.scripts.release --output FOLDER --scale 1

makes FOLDER/SCOLIOSIS1K (1,493 sequences of 300 frames, 64 x 64 uint8 with grey edges, one view; most as pickles in the three
forms that numpy 1 and numpy 2 write, every twentieth as raw PNG masks), FOLDER/Scoliosis1K_118.json (745 and 748 ids) and
FOLDER/subjects.csv (1,050 people). `--scale` multiplies all counts. What is there already is not drawn again; beyond the
release's own number of people, the others are the first ones mirrored, widened or narrowed, for drawing takes its time.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import pickle
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from data_pipelines.schema import CLASSES
from data_pipelines.silhouettes import normalise_sequence
from data_pipelines.synthetic import draw_walker, render_walk

FRAMES = 300
VIEW = "000_180"
WALKS = {"positive": 493, "neutral": 200, "negative": 800}  # of the release
TRAIN = {"positive": 74, "neutral": 74, "negative": 597}  # of its 1:1:8 partition
PEOPLE = 1050
WIDTHS = (1.0, 0.85, 1.15, 0.92, 1.08)
RAW_EVERY = 20  # sequences, of which one is left as raw masks


class Walk(NamedTuple):
    """One sequence of the tree, to be drawn."""

    number: int
    label: int
    person: int
    repeat: int  # which walk of this person
    train: bool
    drawn: int  # the person who is drawn
    variant: int  # 0: as drawn

    @property
    def sequence(self) -> str:
        return f"{self.number:05d}"


def plan(scale: float) -> list[Walk]:
    """Who walks what, by id: a function of the scale. Nobody stands in two parts of the partition."""
    share = 1 - PEOPLE / sum(WALKS.values())  # of walks that are somebody's second
    people, walks = 0, []
    drawn: dict[str, list[int]] = {name: [] for name in WALKS}
    for name, count in WALKS.items():
        most = round((1 - share) * count)  # people of this class who are drawn
        count = max(4, round(scale * count))
        rank = 0
        train = max(2, round(scale * TRAIN[name]))
        for part, left in ((True, train), (False, count - train)):
            twice = round(share * (len(walks) + left)) - (len(walks) - people)  # people; rounded so that all of them add up
            for repeats in [2] * twice + [1] * (left - 2 * twice):
                drawn[name] += [people] if rank < most or scale <= 1 else []
                variant, place = divmod(rank, len(drawn[name])) if rank >= len(drawn[name]) else (0, rank)
                walk = (CLASSES.index(name), people)
                walks += [(*walk, repeat, part, drawn[name][place], variant) for repeat in range(repeats)]
                people, rank = people + 1, rank + 1
    order = np.random.default_rng(0).permutation(len(walks))
    return [Walk(number, *walks[place]) for number, place in enumerate(order)]


def pickled(silhouettes: np.ndarray, style: int) -> bytes:
    """As numpy 1 writes an array, as numpy 2 does, or as numpy 2 does with pickle's newest protocol."""
    if style == 0:
        return pickle.dumps(silhouettes, 3).replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")
    return pickle.dumps(silhouettes, 4 if style == 1 else 5)


def draw(walk: Walk) -> np.ndarray:
    """Raw masks of the person who is drawn for this walk."""
    walker = draw_walker(np.random.default_rng((1, walk.drawn)), walk.label)
    return render_walk(walker, FRAMES, np.random.default_rng((2, walk.drawn, walk.repeat)))  # s h w


def kept(walk: Walk, folder: Path) -> np.ndarray:
    """What `draw` gives, drawn once for all variants."""
    path = folder / f"{walk.drawn}-{walk.repeat}.npy"
    if not path.exists():
        folder.mkdir(exist_ok=True)
        fresh = folder / f"{os.getpid()}.unfinished.npy"
        np.save(fresh, draw(walk))
        fresh.rename(path)
    return np.load(path)


def vary(masks: np.ndarray, variant: int) -> np.ndarray:
    """Somebody else: mirrored, wider or narrower, and both."""
    width = round(masks.shape[2] * WIDTHS[variant // 2 % len(WIDTHS)])
    masks = masks[:, :, ::-1] if variant % 2 else masks
    return np.stack([cv2.resize(np.ascontiguousarray(mask), (width, mask.shape[0])) for mask in masks])  # s h w


def write(walk: Walk, tree: Path) -> None:
    """Draw one sequence, unless it is there."""
    folder = tree / walk.sequence / CLASSES[walk.label].capitalize() / VIEW
    if folder.exists():
        return
    cv2.setNumThreads(1)
    masks = draw(walk) if walk.variant == 0 else vary(kept(walk, tree.parent / "drawn"), walk.variant)
    fresh = tree / f".{walk.sequence}.unfinished"
    fresh.mkdir(parents=True, exist_ok=True)
    if walk.number % RAW_EVERY == 0:
        for frame, mask in enumerate(masks):
            cv2.imwrite(str(fresh / f"{frame:03d}.png"), mask)
    else:
        (fresh / f"{VIEW}.pkl").write_bytes(pickled(normalise_sequence(masks), walk.number % 3))
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh.rename(folder)


def make_release(folder: Path, scale: float) -> Path:
    """Make tree, partition and subjects in `folder`; returns the tree."""
    walks, tree, note = plan(scale), folder / "SCOLIOSIS1K", folder / "scale.txt"
    tree.mkdir(parents=True, exist_ok=True)
    if note.exists() and float(note.read_text(encoding="utf-8")) != scale:
        raise SystemExit(f"error: {folder} holds a tree of scale {note.read_text(encoding='utf-8')}; give another folder")
    note.write_text(f"{scale:g}", encoding="utf-8")
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        list(tqdm(pool.map(write, walks, [tree] * len(walks), chunksize=8), "drawing walks", len(walks), mininterval=5))
    parts = {"TRAIN_SET": True, "TEST_SET": False}
    partition = {name: [walk.sequence for walk in walks if walk.train is train] for name, train in parts.items()}
    (folder / "Scoliosis1K_118.json").write_text(json.dumps(partition), encoding="utf-8")
    with (folder / "subjects.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["sequence", "subject"])
        rows.writerows([walk.sequence, f"person-{walk.person:05d}"] for walk in walks)
    return tree


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=1.0)
    args = parser.parse_args()
    make_release(args.output, args.scale)


if __name__ == "__main__":
    main()
