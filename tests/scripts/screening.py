"""How well screening works, by hand: `python -m tests.scripts.screening --checkpoint runs/quickstart [--clips FOLDER]`.

On 60 synthetic clips: the overlap of the backend background with the true masks, and how often the decision on the clip is that
on the true masks. On real clips in FOLDER (`demo.mp4` of the wheel sports2d 0.8.34, `vtest.avi` of Debian's opencv-doc): frames
per second of every backend, end to end without the network, the overlap of background with pose, and pictures to look at. With
`--stay FOLDER`, what the clips of people who stay in one place get.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from data_pipelines.schema import CLASSES, DataError
from data_pipelines.silhouettes import normalise_sequence
from data_pipelines.video.background import Background
from data_pipelines.video.decoding import Video
from data_pipelines.video.fetch import model_folder
from data_pipelines.video.people import follow
from data_pipelines.video.pose import Pose
from data_pipelines.video.synthetic_clip import walk_across, write_clip
from data_pipelines.video.walk import Walk, read_walk
from scoliojax.runs.command import configure_runtime
from scoliojax.runs.run import open_run
from scoliojax.screen.answer import Screener
from tests.conftest import iou

CLIPS = 60
WALKER = (300, 480)  # of the demo: the woman who crosses the meadow has her feet in these rows


def synthetic(checkpoint: Path) -> None:
    """Overlap and decisions on clips of fresh walkers."""
    screener = Screener(open_run(checkpoint.absolute(), "--checkpoint").network("newest"))
    overlaps, same_decision, same_class, right = [], 0, 0, 0
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(CLIPS):
            label = seed % len(CLASSES)
            images, masks = walk_across(1000 + seed, label)
            path = write_clip(Path(folder) / f"{seed}.mp4", images)
            segmenter, video = Background(), Video(path)
            segmenter.study(video)
            for frame in video.frames():
                overlaps.append(max([iou(one.mask, masks[frame.number]) for one in segmenter(frame)], default=0.0))
            seen = screener(read_walk(path, Background()))
            true = screener(Walk("true", "masks", normalise_sequence(masks), np.arange(len(masks))))
            same_decision += seen.whole.referred == true.whole.referred
            same_class += seen.whole.called == true.whole.called
            right += seen.whole.called == CLASSES[label]
    print(f"background against the true masks, {CLIPS} clips (synthetic): mean IoU {np.mean(overlaps):.3f}")
    same = f"decision {same_decision}/{CLIPS}, class {same_class}/{CLIPS}"
    print(f"as on the true masks: {same}; class right {right}/{CLIPS} (synthetic)")


def real(path: Path, pictures: Path) -> None:
    """Speed and overlap on a real clip, and a picture of both backends on some frames."""
    video = Video(path)
    small = path.with_name(f"{path.stem}-480p.mp4")
    print(f"{path.name}: {video.source['stored_width']} x {video.source['stored_height']}, {video.source['codec']}")
    if min(video.source["stored_width"], video.source["stored_height"]) > 480:
        if not small.exists():
            write_clip(
                small, np.stack([frame.image[: video.height // 2 * 2, : video.width // 2 * 2] for frame in video.frames()])
            )
        video = Video(small)
    found = {}
    for segmenter in (Pose(model_folder()), Background()):
        started = time.perf_counter()
        segmenter.study(video)
        masks = []

        def segmented(segmenter=segmenter, masks=masks):
            for frame in video.frames():
                outlines = segmenter(frame)
                masks.append([one.mask for one in outlines])
                yield frame, outlines

        people = follow(segmented())
        rate = len(masks) / (time.perf_counter() - started)
        print(f"  {segmenter.name}: {rate:.1f} frames/s at {video.width} x {video.height}, {len(people)} tracks")
        found[segmenter.name] = masks
    overlaps = []
    for pose, background in zip(found["pose"], found["background"], strict=True):
        for mask in pose:
            feet = np.flatnonzero(mask.any(axis=1))[-1] if mask.any() else 0
            if background and WALKER[0] <= feet < WALKER[1] - 2:
                overlaps.append(max(iou(mask, other) for other in background))
    where = f"people whose feet are in rows {WALKER[0]} to {WALKER[1]}"
    print(f"  background against pose, {where}: mean IoU {np.mean(overlaps):.3f}, {len(overlaps)} masks")
    rows = []
    for frame in video.frames():
        if frame.number % max(1, len(found["pose"]) // 10) == 5:
            row = [frame.image]
            for masks in found.values():
                shown = frame.image // 2
                for mask in masks[frame.number]:
                    shown[mask > 0] = shown[mask > 0] // 2 + np.array([127, 0, 0], np.uint8)
                row.append(shown)
            rows.append(cv2.resize(np.hstack(row), None, fx=0.45, fy=0.45, interpolation=cv2.INTER_AREA))
    pictures.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(pictures / f"{path.stem}.png"), np.vstack(rows)[..., ::-1])


def staying(folder: Path) -> None:
    """What each clip of somebody who stays in one place gets with both backends: refused, or answered with these flags."""
    for path in sorted(folder.rglob("*.mp4")):
        for segmenter in (Background(), Pose(model_folder())):
            try:
                walk = read_walk(path, segmenter)
                said = f"{len(walk.silhouettes)} silhouettes, flags {[flag.name for flag in walk.flags]}"
            except DataError as error:
                said = f"refused: {error}"
            print(f"{path.relative_to(folder)}, {segmenter.name}: {said}")


def main() -> None:
    configure_runtime()
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, help="run directory, e.g. of the quickstart")
    parser.add_argument("--clips", type=Path, help="folder with demo.mp4 and vtest.avi")
    parser.add_argument("--stay", type=Path, help="folder with clips of people who stay (pose2sim 0.10.49, unpacked)")
    parser.add_argument("--pictures", type=Path, default=Path("screening-pictures"))
    args = parser.parse_args()
    if args.checkpoint:
        synthetic(args.checkpoint)
    for name in ("demo.mp4", "vtest.avi") if args.clips else ():
        real(args.clips / name, args.pictures)
    if args.stay:
        staying(args.stay)


if __name__ == "__main__":
    main()
