"""A video file as a stream of upright frames with their times, through PyAV, whatever its length."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipelines.schema import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SHORT_SIDE = 480  # pixels; larger frames are scaled down to it, smaller ones stay as they are
MOST_RATE = 30.0  # frames a second; of faster video evenly spaced frames are taken
TOLERANCE = 0.2  # of 1/30 s: times of video at 30 frames a second are rounded and waver
SMALLEST_SIDE = 64  # pixels
MOST_STRETCHED = 4  # pixels of a video are at most so many times as wide as high, or the other way round
MOST_PIXELS = 8192 * 8192  # a damaged header can claim anything
# What FFmpeg may take a file for. Its demuxers also include text files, playlists and network protocols.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,h264,hevc,flv,asf,ogg,ivf,m4v,dv,apng"
PHOTOGRAPHS = (b"heic", b"heix", b"mif1", b"avif")  # brands of pictures in the same kind of file
SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".gif", ".3gp", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".ogv",
}  # fmt: skip


class Frame(NamedTuple):
    """One picture.

    Attributes:
      number: among all frames that the file yields, from 0.
      time: in seconds from the first frame.
      image: uint8 RGB `[h, w, 3]`, upright, its short side at most 480.
      corrupt: True where the decoder had to make something up.
    """

    number: int
    time: float
    image: np.ndarray
    corrupt: bool


@dataclass
class Decoded:
    """What came out of a file the last time that it was read from beginning to end.

    Attributes:
      frames: decoded.
      taken: of these, not more than 30 a second.
      corrupt: taken, but marked as damaged by the decoder.
      undecodable: packets that gave no frame.
      missing: frames that the file promises and does not hold.
      seconds: from the first frame to the last.
    """

    frames: int = 0
    taken: int = 0
    corrupt: int = 0
    undecodable: int = 0
    missing: int = 0
    seconds: float = 0.0


@dataclass
class Video:
    """A video file that can be read as often as needed, a stream of frames each time.

    Attributes:
      path: of the file.
      width: of a frame as `frames` gives it, in pixels.
      height: likewise.
      source: width and height as they are stored, codec, rate, rotation in degrees.
      decoded: filled by `frames`.

    Raises:
      DataError: for what is missing, empty, not a video, or has no picture in it.
    """

    path: Path
    width: int = 0
    height: int = 0
    source: dict[str, Any] = field(default_factory=dict)
    decoded: Decoded = field(default_factory=Decoded)

    def __post_init__(self):
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist; give a video file, a folder of mask PNGs or a prepared pickle")
        if self.path.stat().st_size == 0:
            raise DataError(f"{self.path} is empty (0 bytes); copy or record it again")
        for first in self._decode():
            self.height, self.width = first.image.shape[:2]
            if min(self.height, self.width) < SMALLEST_SIDE:
                raise DataError(f"{self.path}: a picture of {self.width} x {self.height} pixels is too small; record it larger")
            return
        raise DataError(f"{self.path}: not one frame can be decoded; copy or record it again")

    def frames(self) -> Iterator[Frame]:
        """Frames from the beginning, in order; brings `decoded` up to date at the end."""
        frames = self._decode()
        with ThreadPoolExecutor(1) as decoder:  # at the next frame while this one is worked on
            coming = decoder.submit(next, frames, None)
            while (frame := coming.result()) is not None:
                coming = decoder.submit(next, frames, None)
                yield frame

    def samples(self, count: int) -> list[np.ndarray]:
        """Images of between `count` and twice as many evenly spaced frames; of all frames of a shorter video."""
        with self._opened() as (container, stream):
            seconds, promised = _seconds(container, stream), stream.frames
        taken = min(promised or math.inf, MOST_RATE * seconds or math.inf)  # of faster video not every frame is taken
        every = max(1, int(taken) // (2 * count)) if taken < math.inf else 1
        return evenly((frame.image for frame in self._decode(every)), count)

    def _decode(self, every: int = 1) -> Iterator[Frame]:
        """Frames, or every so many-th of them: most of the time goes into what is done with a frame once it is decoded."""
        FFmpegError = _pyav().error.FFmpegError  # noqa: N806
        counts = Decoded()
        with self._opened() as (container, stream):
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            rate = rate if 1.0 <= rate <= 1000.0 else MOST_RATE  # broken files claim anything
            clock = _Clock(rate)
            packets = container.demux(stream)
            while True:
                try:
                    packet = next(packets, None)
                except FFmpegError:
                    counts.undecodable += 1
                    break
                if packet is None:
                    break
                try:
                    decoded = packet.decode()
                except FFmpegError:
                    counts.undecodable += 1
                    continue
                for frame in decoded:
                    number, counts.frames = counts.frames, counts.frames + 1
                    if not clock.takes(frame.time):
                        continue
                    if counts.taken % every:
                        counts.taken += 1
                        continue
                    image = self._upright(frame, float(stream.sample_aspect_ratio or 1))
                    if image is None:
                        counts.undecodable += 1
                        continue
                    counts.taken += 1
                    counts.corrupt += frame.is_corrupt
                    counts.seconds = clock.now
                    yield Frame(number, clock.now, image, bool(frame.is_corrupt))
            counts.missing = _missing(container, stream, counts.frames, clock.last)
        self.decoded = counts

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        av = _pyav()
        options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
        titles = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}  # 19 bears any without
        try:
            container = av.open(str(self.path.absolute()), options=options, **titles)
        except (av.error.FFmpegError, ValueError, UnicodeError) as error:
            raise DataError(f"{self.path}: {_why(self.path)} ({str(error).splitlines()[0]})") from None
        with container:
            pictures = [one for one in container.streams.video if not one.disposition & one.disposition.attached_pic]
            if not pictures:
                raise DataError(f"{self.path} has no video stream, only {_kinds(container)}; give the file with the picture")
            stream = pictures[0]
            context = stream.codec_context
            if context is None:
                raise DataError(f"{self.path}: its codec is not known here; convert it to H.264 in an .mp4 file")
            if not 0 < stream.width * stream.height <= MOST_PIXELS:
                raise DataError(f"{self.path}: frames of {stream.width} x {stream.height} pixels; expected up to 8192 x 8192")
            stream.thread_type = "AUTO"
            self.source |= {
                "stored_width": stream.width,
                "stored_height": stream.height,
                "codec": context.name,
                "frames_per_second": float(stream.average_rate or 0) or None,
            }
            yield container, stream

    def _upright(self, frame: VideoFrame, stretch: float) -> np.ndarray | None:
        """RGB `[h, w, 3]` with square pixels, scaled and turned; None where it cannot be converted, or its size changed."""
        if not 0 < frame.width * frame.height <= MOST_PIXELS:
            return None
        wide = frame.width * (stretch if 1 / MOST_STRETCHED <= stretch <= MOST_STRETCHED else 1.0)
        scale = min(1.0, SHORT_SIDE / min(wide, frame.height))
        width, height = max(round(wide * scale), 1), max(round(frame.height * scale), 1)
        try:
            image = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")  # h w 3
        except (_pyav().error.FFmpegError, ValueError, MemoryError):
            return None
        rotation = int(frame.rotation or 0)
        self.source["rotation"] = rotation
        image = np.ascontiguousarray(np.rot90(image, rotation // 90))  # h w 3
        return image if self.height in (0, image.shape[0]) and self.width in (0, image.shape[1]) else None


class _Clock:
    """Times from the first frame, always rising, and which frames to take so that there are not more than 30 a second."""

    def __init__(self, rate: float):
        self._step = 1.0 / rate
        self._first: float | None = None
        self._slot = -1
        self.now = 0.0
        self.last = -self._step  # of all frames, taken or not

    def takes(self, time: float | None) -> bool:
        if time is not None and self._first is None:
            self._first = time
        found = None if time is None or self._first is None else time - self._first
        self.last = found if found is not None and found > self.last else self.last + self._step
        slot = math.floor(self.last * MOST_RATE + TOLERANCE)
        if slot <= self._slot:
            return False
        self._slot, self.now = slot, self.last
        return True


def evenly(images: Iterable[np.ndarray], count: int) -> list[np.ndarray]:
    """Between `count` and twice as many of a stream's images, evenly spaced, however long it is (all of a shorter one)."""
    kept: list[np.ndarray] = []
    every = 1
    for number, image in enumerate(images):
        if number % every == 0:
            kept.append(image)
            if len(kept) == 2 * count:
                kept, every = kept[::2], 2 * every
    return kept


def _pyav() -> Any:
    """PyAV, imported where it is used: training does without it."""
    try:
        import av
        import av.error
    except ModuleNotFoundError:
        raise DataError('reading a video needs PyAV, which is not installed: pip install "scoliojax[screen]"') from None
    return av


def _missing(container, stream, frames: int, last: float) -> int:
    """Frames promised by the file's count, or else by its duration, and not found; a few lost at an edit do not count.

    Args:
      container: that was read.
      stream: likewise.
      frames: that were found.
      last: time of the last of them, in seconds.
    """
    promised = stream.frames
    if not promised and last > 0.0:
        promised = round(_seconds(container, stream) * (frames - 1) / last)
    short = promised - frames
    return short if frames and short > max(2, 0.02 * promised) else 0


def _seconds(container, stream) -> float:
    """How long the pictures of a file claim to last; 0 where that is not said apart from the sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if clock := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = (float(part) for part in clock.groups())
        return 3600.0 * hours + 60.0 * minutes + seconds
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def _why(path: Path) -> str:
    """What is wrong with a file that does not open: one of the MP4 family whose recording never ended has no index."""
    boxes = []
    with path.open("rb") as file:
        while len(boxes) < 1000 and len(head := file.read(16)) >= 8:
            size, kind = int.from_bytes(head[:4]), head[4:8]
            boxes.append(kind)
            if kind == b"ftyp" and head[8:12] in PHOTOGRAPHS:
                break
            size = int.from_bytes(head[8:16]) if size == 1 else size
            if size < 8:
                break
            file.seek(size - len(head), 1)
    if boxes[:1] == [b"ftyp"] and b"mdat" in boxes and b"moov" not in boxes:
        return "the recording was not finished or is cut off, its index (moov) is missing; copy or record it again"
    return "not a video that can be read; give a file such as .mp4, .mov, .avi, .mkv, .webm or .gif"


def _kinds(container) -> str:
    return ", ".join(sorted({stream.type for stream in container.streams})) or "nothing"
