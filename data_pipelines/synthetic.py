"""Synthetic walkers in front view, drawn from a parametric model: data for demonstrations and tests without real data.

The three classes differ in the clinical signs of adolescent idiopathic scoliosis that are visible from the front: shoulder
tilt, lateral trunk shift, a curved spine, pelvic tilt and unequal arm swing. One number, the severity, scales all five signs.
Their mixture and side vary between subjects, every subject has a little natural asymmetry, and `neutral` lies between the
other two classes and overlaps both. A walker is drawn as a raw mask with errors like those of a segmentation network, and then
normalised like a real mask.
"""

import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from data_pipelines.command import Parser, expanded_path, make_parser, report_errors, whole_number
from data_pipelines.schema import CLASSES, FRAME_SIZE, MARKER, DataError, SequenceSet, nested
from data_pipelines.silhouettes import normalise_sequence

SYNTHETIC = "a synthetic walker, not a person"  # comment in video files that show one
RASTER = (96, 72)  # rows and columns of the raw mask
STATURE = 86.0  # rows; height of a standing body
SEEN = 6.0  # pixels; largest distance from the edge of a body part at which it changes the mask
SEVERITY = {"negative": 0.08, "neutral": 0.47, "positive": 1.0}  # class means
SEVERITY_SPREAD = {"negative": 0.08, "neutral": 0.10, "positive": 0.15}  # class standard deviations


def draw_walker(rng: np.random.Generator, label: int) -> SimpleNamespace:
    """Random subject of the class `label`: body shape and gait do not depend on the class, the five signs do.

    Lengths are in body heights, angles in radians, times in frames; positive is towards the right of the image.
    """
    name = CLASSES[label]
    severity = abs(rng.normal(SEVERITY[name], SEVERITY_SPREAD[name]))
    side = rng.choice([-1.0, 1.0])

    def sign(full: float, natural: float) -> float:
        return side * severity * full * rng.uniform(0.8, 1.2) + rng.normal(0.0, natural)

    leg = rng.uniform(0.47, 0.52)
    head = rng.uniform(0.058, 0.070)
    return SimpleNamespace(
        leg=leg,
        trunk=1.0 - leg - 2.0 * head - 0.045,
        head=head,
        shoulder_width=rng.uniform(0.20, 0.25),
        waist_width=rng.uniform(0.14, 0.19),
        hip_width=rng.uniform(0.16, 0.20),
        arm=rng.uniform(0.36, 0.41),
        limb=rng.uniform(0.85, 1.2),
        step_width=rng.uniform(0.035, 0.065),
        period=rng.uniform(24.0, 34.0),
        phase=rng.uniform(0.0, 2.0 * np.pi),
        sway=rng.uniform(0.004, 0.014),
        foot_lift=rng.uniform(0.04, 0.07),
        arm_swing=rng.uniform(0.25, 0.6),
        shoulder_tilt=sign(0.15, 0.012),
        trunk_shift=sign(0.045, 0.004),
        curve=sign(-0.040, 0.004),
        pelvic_tilt=sign(-0.09, 0.010),
        swing_asymmetry=np.clip(sign(0.55, 0.05), -0.9, 0.9),
    )


def render_walk(walker: SimpleNamespace, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Raw masks of a walk: uint8 `[s, 96, 72]` with soft, irregular edges, and now and then a hole or a spot at the edge."""
    import cv2  # imported here so that commands answer --help without it

    distance = _draw_body(walker, frames)  # s h w
    height, width = RASTER
    y, x = np.mgrid[0:height, 0:width]
    coarse = rng.normal(0.0, 0.55, (frames, height // 8, width // 8)).astype(np.float32)  # s h/8 w/8
    for frame, noise in zip(distance, coarse, strict=True):  # h w, h/8 w/8
        frame += cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR)
        if rng.random() < 0.06:
            radius, fill = rng.uniform(1.5, 4.0), rng.random() < 0.4
            rows, columns = np.nonzero(np.abs(frame) < 2.0)
            centre = rng.integers(len(rows))
            gap = np.hypot(y - rows[centre], x - columns[centre]).astype(np.float32) - radius  # h w
            frame[:] = np.maximum(frame, -gap) if fill else np.minimum(frame, gap)
    return (np.clip(distance + 0.5, 0.0, 1.0) * 255.0).astype(np.uint8)  # s h w


def move_body(body: SimpleNamespace, frames: int) -> SimpleNamespace:
    """Where the parts of a walker are in each frame, in body heights: x from the middle of the picture, y above the ground.

    `pelvis` and `shoulders` are the middle and the angle of a line, x, y and radians, each `[s]`; `head` is its centre; `sides`
    holds the joints at the left (-1) and at the right (1) of the picture.
    """
    stride = 2.0 * np.pi * np.arange(frames) / body.period + body.phase  # s

    def beside(middle_x, middle_y, across: float, angle):
        return middle_x + across * np.cos(angle), middle_y + across * np.sin(angle)  # s, s

    # Pelvis: sways once per stride and rises twice; it drops on the side of the swinging leg.
    pelvis_x = body.sway * np.sin(stride)  # s
    pelvis_y = body.leg + 0.008 * np.cos(2.0 * stride)  # s
    pelvis_angle = body.pelvic_tilt + 0.03 * np.sin(stride)  # s
    # Spine: a lateral shift that grows with height, and a curve that is widest halfway up.
    shoulder_x = pelvis_x + body.trunk_shift  # s
    shoulder_y = pelvis_y + body.trunk  # s
    shoulder_angle = body.shoulder_tilt - 0.02 * np.sin(stride)  # s

    sides = {}
    for side in (-1.0, 1.0):
        half_stride = stride + (0.0 if side < 0 else np.pi)  # s
        # Legs: the swinging foot rises; in front view the knee rises less and moves a little outwards.
        hip = beside(pelvis_x, pelvis_y - 0.03, side * 0.26 * body.hip_width, pelvis_angle)
        lift = body.foot_lift * np.clip(np.sin(half_stride), 0.0, None)  # s
        ankle = (0.6 * pelvis_x + side * body.step_width, 0.035 + lift)
        knee = (0.5 * (hip[0] + ankle[0]) + side * 0.10 * lift, 0.5 * (hip[1] + ankle[1]) + 0.4 * lift)
        # Arms: opposite to the leg; in front view a forward swing is a shorter arm and a bent elbow.
        swing = body.arm_swing * (1.0 + side * body.swing_asymmetry) * np.sin(half_stride + np.pi)  # s
        reach = 0.5 * body.arm * np.cos(0.9 * swing)  # s
        shoulder = beside(shoulder_x, shoulder_y - 0.045, side * 0.46 * body.shoulder_width, shoulder_angle)
        elbow = (shoulder[0] + side * (0.035 + 0.02 * np.abs(swing)), shoulder[1] - reach)
        forward = np.clip(swing, 0.0, None)  # s
        hand = (elbow[0] + side * (0.006 - 0.05 * forward), elbow[1] - reach * (1.0 - 0.7 * forward))
        sides[side] = SimpleNamespace(hip=hip, knee=knee, ankle=ankle, shoulder=shoulder, elbow=elbow, hand=hand)
    # Neck and head: half of the trunk shift is corrected towards the middle.
    lean = 0.5 * body.trunk_shift
    return SimpleNamespace(
        pelvis=(pelvis_x, pelvis_y, pelvis_angle),
        shoulders=(shoulder_x, shoulder_y, shoulder_angle),
        head=(shoulder_x - 0.3 * lean, shoulder_y + 0.045 + body.head),
        sides=sides,
    )


def _draw_body(body: SimpleNamespace, frames: int) -> np.ndarray:
    """Signed distance to the edge of the body in pixels, positive inside: float32 `[s, h, w]`."""
    rows, columns = np.ogrid[0 : RASTER[0], 0 : RASTER[1]]
    y = ((RASTER[0] - 4 - rows.astype(np.float32)) / STATURE)[None]  # 1 h 1; height above the ground
    x = ((columns.astype(np.float32) - (RASTER[1] - 1) / 2) / STATURE)[None]  # 1 1 w

    def at(value) -> np.ndarray:
        return np.asarray(value, np.float32).reshape(-1, 1, 1)  # s 1 1

    inside = np.full((frames, *RASTER), -np.inf, np.float32)  # s h w

    def window(across, up, reach: float) -> tuple[slice, slice]:
        """Rows and columns in which a body part can change the mask of any frame."""
        reach = reach * STATURE + SEEN
        middle, ground = (RASTER[1] - 1) / 2, RASTER[0] - 4
        left, right = (int(edge(across) * STATURE + middle + sign * reach) for edge, sign in ((np.min, -1), (np.max, 1)))
        top, bottom = (int(ground - edge(up) * STATURE + sign * reach) for edge, sign in ((np.max, -1), (np.min, 1)))
        return slice(max(top, 0), max(bottom, 0)), slice(max(left, 0), max(right, 0))

    def add(place: tuple[slice, slice], distance: np.ndarray) -> None:
        part = inside[:, *place]  # s h' w'
        np.maximum(part, distance * STATURE, out=part)

    def limb(start, end, start_radius: float, end_radius: float) -> None:
        place = window((start[0], end[0]), (start[1], end[1]), max(start_radius, end_radius))
        here_x, here_y = x[:, :, place[1]], y[:, place[0]]  # 1 1 w', 1 h' 1
        ax, ay, bx, by = at(start[0]), at(start[1]), at(end[0]), at(end[1])
        dx, dy = bx - ax, by - ay
        along = np.clip(((here_x - ax) * dx + (here_y - ay) * dy) / (dx * dx + dy * dy + 1e-9), 0.0, 1.0)  # s h' w'
        gap = np.hypot(here_x - ax - along * dx, here_y - ay - along * dy)  # s h' w'
        add(place, start_radius + (end_radius - start_radius) * along - gap)

    points = move_body(body, frames)
    for side, ends in points.sides.items():
        limb(ends.hip, ends.knee, 0.060 * body.limb, 0.038 * body.limb)
        limb(ends.knee, ends.ankle, 0.040 * body.limb, 0.024 * body.limb)
        limb(ends.ankle, (ends.ankle[0] + side * 0.012, ends.ankle[1] - 0.018), 0.026, 0.022)
        limb(ends.shoulder, ends.elbow, 0.034 * body.limb, 0.026 * body.limb)
        limb(ends.elbow, ends.hand, 0.026 * body.limb, 0.020 * body.limb)

    # Trunk: one outline around the bent spine from hips to shoulders, tilted at both ends.
    (pelvis_x, pelvis_y, pelvis_angle), (shoulder_x, shoulder_y, shoulder_angle) = points.pelvis, points.shoulders
    widest = max(body.hip_width, body.shoulder_width) + abs(body.curve)
    place = window((pelvis_x, shoulder_x), (pelvis_y, shoulder_y), widest)
    here_x, here_y = x[:, :, place[1]], y[:, place[0]]  # 1 1 w', 1 h' 1
    base = at(pelvis_y - 0.05) + (here_x - at(pelvis_x)) * np.tan(at(pelvis_angle))  # s h' w'
    away = here_x - at(shoulder_x)  # s h' w'
    slope = 0.30 * np.clip(np.abs(away) - 0.03, 0.0, None)  # s h' w'; shoulders fall away from the neck
    top = at(shoulder_y) + away * np.tan(at(shoulder_angle)) - slope  # s h' w'
    up = (here_y - base) / (top - base)  # s h' w'; 0 at the hips, 1 at the shoulders
    spine = at(pelvis_x) + body.trunk_shift * up + body.curve * np.sin(np.pi * np.clip(up, 0.0, 1.0))  # s h' w'
    outline = ((0.0, body.hip_width), (0.2, 1.03 * body.hip_width), (0.48, body.waist_width),
               (0.8, 0.5 * (body.waist_width + body.shoulder_width)), (0.93, body.shoulder_width),
               (1.0, 0.90 * body.shoulder_width))  # fmt: skip
    heights, widths = np.array(outline, np.float32).T
    half_width = 0.5 * np.interp(up, heights, widths).astype(np.float32)  # s h' w'
    add(place, np.minimum(half_width - np.abs(here_x - spine), np.minimum(up, 1.0 - up) * body.trunk))

    head = points.head
    limb((shoulder_x, shoulder_y - 0.02), head, 0.034, 0.030)
    limb((head[0], head[1] - 0.018), (head[0], head[1] + 0.012), 0.72 * body.head, 0.80 * body.head)
    return inside


def walk(subject: int, frames: int, seed: int) -> tuple[int, np.ndarray]:
    """Class id and normalised silhouettes uint8 `[s, 64, 64]` of one subject, a pure function of the arguments."""
    rng = np.random.default_rng((seed, subject))
    label = subject % len(CLASSES)
    return label, normalise_sequence(render_walk(draw_walker(rng, label), frames, rng))


def synthetic_walkers(subjects: int, frames: int, seed: int = 0) -> SequenceSet:
    """A set of `subjects` walkers with one sequence of `frames` frames each, the classes in turn, drawn at every read."""
    if subjects < len(CLASSES):
        raise DataError(f"data.synthetic.subjects={subjects} does not fill {len(CLASSES)} classes; give at least 3")
    if frames < 1:
        raise DataError(f"data.synthetic.frames={frames} leaves nothing to look at; give at least 1")
    name = f"synthetic walkers ({subjects} x {frames} frames, seed {seed})"
    names = tuple(f"{subject:05d}" for subject in range(subjects))
    labels = np.arange(subjects, dtype=np.int32) % len(CLASSES)
    n_frames = np.full(subjects, frames, np.int32)  # normalisation never drops a frame of a walker
    content = f"walkers of seed {seed}"
    return SequenceSet(name, True, names, names, labels, n_frames, lambda row: walk(row, frames, seed)[1], content)


def write_tree(walkers: SequenceSet, root: Path, read: Callable[[int], np.ndarray] | None = None) -> None:
    """Write walkers in the released layout: what `read` gives of each, by its row; None for the silhouettes."""
    for row, sequence in enumerate(walkers.sequences):
        view = root / sequence / CLASSES[walkers.labels[row]].capitalize() / "000_180"
        view.mkdir(parents=True)
        (view / "000_180.pkl").write_bytes(pickle.dumps((read or walkers.read)(row)))


def _mark(root: Path) -> None:
    """Leave word in a tree that it shows nobody."""
    (root / MARKER).write_text(f"Each sequence in this folder is {SYNTHETIC}.\n", encoding="utf-8")


def contact_sheet(seed: int) -> np.ndarray:
    """Picture with two walkers of every class, a row each, labelled with the class: uint8 `[h, w]`."""
    import cv2

    title = np.zeros((24, 96 + 12 * FRAME_SIZE), np.uint8)  # 24 w
    rows = [cv2.putText(title, "synthetic walkers, not people", (6, 17), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA)]
    for subject in (0, 3, 1, 4, 2, 5):
        label, silhouettes = walk(subject, 36, seed)
        strip = np.hstack([np.zeros((FRAME_SIZE, 96), np.uint8), *silhouettes[::3]])  # 64 w
        rows.append(cv2.putText(strip, CLASSES[label], (6, 36), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1, cv2.LINE_AA))
    return np.vstack(rows)


def arguments() -> Parser:
    parser = make_parser(
        "data_pipelines.synthetic",
        "Write synthetic walkers as a tree in the released Scoliosis1K layout, or draw some of them.",
        "--output DIR | --sheet FILE.png [options]",
        "data_pipelines.synthetic --output tree --subjects 60",
    )
    target = parser.add_mutually_exclusive_group(required=True)
    target.add_argument("--output", type=expanded_path, metavar="DIR", help="folder to make; must not exist or be empty")
    help_text = "with --output: folder to make for the poses of the same walks, as the pose release has them"
    parser.add_argument("--poses", type=expanded_path, metavar="DIR", help=help_text)
    target.add_argument("--sheet", type=expanded_path, metavar="FILE", help="PNG to draw a few walkers into, instead")
    parser.add_argument(
        "--subjects", type=whole_number(3), default=60, metavar="N", help="number of walkers; default %(default)s"
    )
    parser.add_argument(
        "--frames", type=whole_number(1), default=60, metavar="N", help="frames of each walk; default %(default)s"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="seed of the walkers; default %(default)s")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    parser = arguments()
    args = parser.parse_args(argv)
    if args.poses and not args.output:
        parser.error("--poses is of --output")
    with report_errors("the tree is not complete; delete it"):
        if args.sheet:
            import cv2

            if not cv2.imwrite(str(args.sheet), contact_sheet(args.seed)):
                raise DataError(f"--sheet={str(args.sheet)!r} cannot be written; give a .png in a folder that exists")
            return
        for option, folder in {"output": args.output, "poses": args.poses}.items():
            if folder and folder.exists() and any(folder.iterdir()):
                raise DataError(f"--{option}={str(folder)!r} is not empty; give a new folder")
        if args.poses and nested(args.poses, args.output):
            raise DataError(f"--poses={str(args.poses)!r} and --output={str(args.output)!r} are not apart; give another folder")
        walkers = synthetic_walkers(args.subjects, args.frames, args.seed)
        write_tree(walkers, args.output)
        _mark(args.output)
        print(f"{len(walkers)} synthetic sequences in {args.output}")
        if args.poses:
            from data_pipelines.poses.synthetic import walk_poses

            write_tree(walkers, args.poses, lambda row: walk_poses(row, args.frames, args.seed))
            _mark(args.poses)
            print(f"their poses in {args.poses}")


if __name__ == "__main__":
    main()
