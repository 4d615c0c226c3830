"""Video clips of synthetic walkers in front of a textured background, with their true masks, to try screening.

python -m data_pipelines.video.synthetic_clip --output walk.mp4 --label positive
python -m data_pipelines.video.synthetic_clip --output near.mp4 --label positive --towards
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from data_pipelines.command import Parser, expanded_path, make_parser, report_errors, unwritable, whole_number
from data_pipelines.schema import CLASSES, DataError
from data_pipelines.synthetic import RASTER, SYNTHETIC, draw_walker, render_walk

SIZE = (200, 320)  # rows, columns
SCALE = 1.6  # pixels of the clip per pixel of the walker's raw mask
TOWARDS_SIZE = (480, 360)  # rows, columns of a clip of somebody who comes nearer
FAR, NEAR = 0.28, 0.88  # heights of the raw mask at the start and the end of such a clip, as fractions of the picture's
HORIZON = 0.34  # row of the horizon as a fraction of the picture's height
BELOW = 0.2  # distance of the walker's middle below the horizon, as a fraction of the height


def background(rng: np.random.Generator, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Static scene with edges and corners, uint8 `[h, w, 3]`."""
    import cv2  # imported here so that commands answer --help without it

    height, width = size
    scene = rng.integers(70, 190, (height // 8 + 1, width // 8 + 1, 3)).astype(np.uint8)  # h/8+1 w/8+1 3
    scene = cv2.resize(scene, (width, height), interpolation=cv2.INTER_CUBIC).astype(np.int16)  # h w 3
    for _ in range(14):
        top, left = rng.integers(0, height - 20), rng.integers(0, width - 20)
        scene[top : top + rng.integers(8, 60), left : left + rng.integers(8, 60)] += rng.integers(-45, 45, 3).astype(np.int16)
    return scene.clip(20, 235).astype(np.uint8)  # h w 3


def walk_across(
    seed: int, label: int, frames: int = 60, size: tuple[int, int] = SIZE, scale: float = SCALE, start: float = 0.12
) -> tuple[np.ndarray, np.ndarray]:
    """A walker crossing the picture from left to right, a pure function of seed, class id `label` and the other arguments.

    The walker's middle goes from `start` to `1 - start`, as fractions of the width. Returns images uint8 `[s, h, w, 3]`, and
    the true masks uint8 `[s, h, w]`, 0 or 255.
    """
    middles = size[1] * (start + (1.0 - 2.0 * start) * np.arange(frames) / (frames - 1))  # s
    return _film(seed, label, size, np.full(frames, scale), middles, np.full(frames, size[0] / 2))


def walk_towards(
    seed: int, label: int, frames: int = 90, size: tuple[int, int] = TOWARDS_SIZE, far: float = FAR, near: float = NEAR
) -> tuple[np.ndarray, np.ndarray]:
    """A walker who comes straight towards the camera at an even pace: as `walk_across`, but growing in the middle.

    `far` and `near` are the heights of the raw mask at both ends, as fractions of the picture's height.
    """
    distance = np.linspace(1.0 / far, 1.0 / near, frames)  # s; in heights of the picture
    tall = size[0] / distance  # s
    return _film(seed, label, size, tall / RASTER[0], np.full(frames, size[1] / 2), HORIZON * size[0] + BELOW * tall)


def _film(
    seed: int, label: int, size: tuple[int, int], scales: np.ndarray, across: np.ndarray, down: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Images and true masks of a walker; of each frame the scale, and the column and row of the raw mask's middle."""
    import cv2

    frames, (height, width) = len(scales), size
    rng = np.random.default_rng((seed, label, 77))
    raw = render_walk(draw_walker(rng, label), frames, rng)  # s 96 72
    tallest, widest = (round(edge * scales.max()) for edge in raw.shape[1:])
    scene = background(rng, size)
    shirt, trousers = (scene.reshape(-1, 3).mean(0) + side * rng.uniform(60, 80, 3) for side in rng.choice([-1, 1], 2))
    cloth = np.where(np.arange(tallest)[:, None, None] < 0.52 * tallest, shirt, trousers) + rng.normal(
        0, 6, (tallest, widest, 3)
    )
    images, masks = np.empty((frames, *size, 3), np.uint8), np.zeros((frames, *size), np.uint8)
    for number, (scale, middle, centre) in enumerate(zip(scales, across, down, strict=True)):
        tall, wide = (round(edge * scale) for edge in raw.shape[1:])
        person = cv2.resize(raw[number], (wide, tall), interpolation=cv2.INTER_CUBIC) > 127
        dressed = cv2.resize(cloth, (wide, tall), interpolation=cv2.INTER_AREA)
        left, top = round(middle - wide / 2), int(centre - tall / 2)
        rows, columns = (
            slice(max(0, -first), min(edge, room - first)) for first, edge, room in ((top, tall, height), (left, wide, width))
        )
        place = (slice(max(top, 0), top + tall), slice(max(left, 0), left + wide))
        masks[number][place] = person[rows, columns] * 255
        image = scene.astype(np.float32)
        image[place] = np.where(person[rows, columns, None], dressed[rows, columns], image[place])
        images[number] = (image + rng.normal(0.0, 2.0, (*size, 1))).clip(0, 255)
    return images, masks


def write_clip(
    path: Path,
    images: np.ndarray,
    codec: str = "libx264",
    rotation: int = 0,
    times=None,
    rate: int = 30,
    movflags: str = "",
    comment: str = "",
) -> Path:
    """Encode uint8 `[s, h, w, 3]`, stored rotated by `-rotation` degrees with a flag for its display; `times` in seconds."""
    import av  # an optional dependency that training does not need

    stored = np.rot90(images, -(rotation // 90), axes=(1, 2))
    with av.open(str(path), "w", options={"movflags": movflags} if movflags else {}) as container:
        if comment:
            container.metadata["comment"] = comment
        stream: Any = container.add_stream(codec, rate=rate)
        stream.height, stream.width = stored.shape[1:3]
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        if codec != "gif":
            quick = {"crf": "16", "preset": "veryfast", "deadline": "realtime", "cpu-used": "8"}
            stream.options = quick | {"x265-params": "log-level=none"}
        stream.codec_context.time_base = stream.time_base = Fraction(1, 1000 if codec != "gif" else 100)
        if rotation:
            stream.set_display_rotation(rotation)
        moments = np.arange(len(stored)) / rate if times is None else times
        for image, moment in zip(stored, moments, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(moment / float(frame.time_base))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def arguments() -> Parser:
    parser = make_parser(
        "data_pipelines.video.synthetic_clip",
        "Write a video of a synthetic walker, to try screening without a person.",
        "--output FILE [options]",
        "data_pipelines.video.synthetic_clip --output walk.mp4 --label positive",
    )
    parser.add_argument("--output", required=True, type=expanded_path, metavar="FILE", help="video to write, e.g. walk.mp4")
    parser.add_argument("--label", default="positive", choices=CLASSES, help="class of the walker; default %(default)s")
    parser.add_argument(
        "--frames", type=whole_number(2, 3000), default=90, metavar="N", help="frames of the clip; default %(default)s"
    )
    parser.add_argument("--seed", type=whole_number(0), default=0, metavar="N", help="seed of the walker; default %(default)s")
    parser.add_argument("--towards", action="store_true", help="let the walker come towards the camera, not cross the picture")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    with report_errors("the clip is not complete; delete it"):
        label = CLASSES.index(args.label)
        if args.towards:
            images, _ = walk_towards(args.seed, label, args.frames)
        else:
            images, _ = walk_across(args.seed, label, args.frames, (480, 854), 3.6)
        try:
            write_clip(args.output, images, comment=SYNTHETIC)
        except ModuleNotFoundError:
            raise DataError('writing a video needs PyAV: pip install "scoliojax[screen]"') from None
        except OSError as error:
            raise DataError(f"--output={str(args.output)!r} {unwritable(error)}") from None
        except ValueError as error:  # of PyAV: the suffix tells no format
            raise DataError(
                f"--output={str(args.output)!r} cannot be written ({error}); give a file such as walk.mp4"
            ) from None
        print(f"a synthetic walker, {args.label}, {args.frames} frames, in {args.output}")


if __name__ == "__main__":
    main()
