"""Decoding with PyAV: a video file of any length as a stream of upright frames with their times."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from data_pipelines.files import BEGINNING, Footage, kind_of
from data_pipelines.schema import DataError
from data_pipelines.synthetic import SYNTHETIC
from data_pipelines.video.faults import is_black, is_combed, is_repeated
from data_pipelines.video.orientation import read_orientation

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

SHORT_SIDE = 480  # pixels; larger frames are scaled down to this, smaller frames are not scaled
MOST_RATE = 30.0  # frames per second; faster video is thinned to evenly spaced frames
TOLERANCE = 0.2  # fraction of 1/30 s; the times of video at 30 frames per second are rounded
SMALLEST_SIDE = 64  # pixels
MOST_STRETCHED = 4  # largest accepted ratio of the sides of a pixel
MOST_PIXELS = 8192 * 8192  # limit for a frame; a damaged header can claim any size
# Container formats that FFmpeg may detect. Others would open text files, playlists and network addresses.
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,h264,hevc,flv,asf,ogg,ivf,m4v,dv,apng"
PHOTOGRAPHS = (b"heic", b"heix", b"mif1", b"avif")  # brands of still pictures in the MP4 family
SUFFIXES = {
    ".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".gif", ".3gp", ".mpg", ".mpeg", ".ts", ".mts", ".wmv", ".flv", ".ogv",
}  # fmt: skip
GIVE = "give a video file, a folder of mask PNGs or of poses (one JSON a frame), or a pickle of either"


class Frame(NamedTuple):
    number: int  # from 0, counting all frames of the file
    time: float  # seconds from the first frame
    image: np.ndarray  # uint8 RGB [h, w, 3], upright, short side at most 480
    corrupt: bool  # True if the decoder had to conceal missing data
    repeated: bool = False  # True if it is the frame before once more
    black: bool = False


@dataclass
class Decoded:
    """Counts of the last complete reading of a file."""

    frames: int = 0  # decoded
    taken: int = 0  # of these, at most 30 per second
    corrupt: int = 0  # of these, marked as damaged by the decoder
    undecodable: int = 0  # packets without a frame
    missing: int = 0  # frames that the file claims to have and does not have
    combed: int = 0  # of the taken ones, woven of two moments (interlaced)
    black: int = 0  # of the taken ones
    seconds: float = 0.0  # from the first taken frame to the last


@dataclass
class Video:
    """A video file, which can be read several times as a stream of frames; raises `DataError` for a file that cannot."""

    path: Path
    width: int = 0  # pixels of a frame from `frames`
    height: int = 0
    source: dict[str, Any] = field(default_factory=dict)  # stored width and height, codec, rate, rotation in degrees, mirrored
    other_tracks: list[str] = field(default_factory=list)  # sizes of the video tracks that are not read
    decoded: Decoded = field(default_factory=Decoded)  # set when `frames` ends
    expected: int | None = None  # frames to be taken, by what the file claims; None if it claims nothing
    watch: Callable[[int], None] = lambda taken: None  # told the frames taken so far; what it raises ends the reading

    def __post_init__(self):
        if not self.path.is_file():
            raise DataError(f"{self.path} does not exist; {GIVE}")
        if self.path.stat().st_size == 0:
            raise DataError(f"{self.path} is empty (0 bytes); copy or record it again")
        if (first := next(self._decode(), None)) is None:
            raise DataError(f"{self.path}: not one frame can be decoded; copy or record it again")
        self.height, self.width = first.image.shape[:2]
        if min(self.height, self.width) < SMALLEST_SIDE:
            raise DataError(f"{self.path}: a picture of {self.width} x {self.height} pixels is too small; record it larger")

    def frames(self) -> Iterator[Frame]:
        """All frames in order; updates `decoded` at the end."""
        frames = self._decode(look=True)
        with ThreadPoolExecutor(1) as decoder:  # decodes the next frame while the caller works on this one
            coming = decoder.submit(next, frames, None)
            while (frame := coming.result()) is not None:
                coming = decoder.submit(next, frames, None)
                yield frame

    def samples(self, count: int) -> list[np.ndarray]:
        """Images of `count` to 2 `count` evenly spaced frames; all images of a shorter video."""
        every = max(1, (self.expected or 1) // (2 * count))
        images = evenly((frame.image for frame in self._decode(every)), count)
        if len(images) < min(count, self.decoded.taken):  # the file claims more frames than it holds
            every = max(1, self.decoded.taken // (2 * count))
            images = evenly((frame.image for frame in self._decode(every)), count)
        return images

    def _decode(self, every: int = 1, look: bool = False) -> Iterator[Frame]:
        """Every `every`-th frame; with `look`, faults of the pictures are looked for.

        Skipped frames save the conversion to RGB, which takes most of the time.
        """
        FFmpegError = _pyav().error.FFmpegError  # noqa: N806
        counts, before = Decoded(), None
        with self._opened() as (container, stream):
            claimed = min(stream.frames or math.inf, MOST_RATE * _seconds(container, stream) or math.inf)
            self.expected = round(claimed) if claimed < math.inf else None
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            rate = rate if 1.0 <= rate <= 1000.0 else MOST_RATE  # a damaged header can claim any rate
            clock = _Clock(rate)
            packets = container.demux(stream)
            while True:
                try:
                    if (packet := next(packets, None)) is None:  # also after an error of the demuxer
                        break
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
                    elif (image := self._upright(frame, float(stream.sample_aspect_ratio or 1))) is None:
                        counts.undecodable += 1
                    else:
                        counts.taken += 1
                        counts.corrupt += frame.is_corrupt
                        counts.seconds = clock.now
                        self.watch(counts.taken)
                        repeated, black = look and is_repeated(image, before), look and is_black(image)
                        if look:
                            counts.combed += is_combed(frame)
                            counts.black += black
                            before = image
                        yield Frame(number, clock.now, image, bool(frame.is_corrupt), repeated, black)
            counts.missing = _missing(container, stream, counts.frames, clock.last)
        self.decoded = counts

    @contextmanager
    def _opened(self) -> Iterator[tuple[InputContainer, VideoStream]]:
        av = _pyav()
        options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
        # Before version 19, titles that are not UTF-8 raise an error without this option.
        titles = {} if int(av.__version__.split(".")[0]) >= 19 else {"metadata_errors": "replace"}
        try:
            container = av.open(str(self.path.absolute()), options=options, **titles)
        except (av.error.FFmpegError, ValueError, UnicodeError) as error:
            raise DataError(
                f"{self.path}{what_else(self.path) or f': {_why(self.path)} ({str(error).splitlines()[0]})'}"
            ) from None
        with container:
            tracks = [item for item in container.streams.video if not item.disposition & item.disposition.attached_pic]
            tracks.sort(key=lambda item: item.width * item.height if item.codec_context else -1, reverse=True)
            self.other_tracks = [f"{item.width} x {item.height}" if item.codec_context else "unknown" for item in tracks[1:]]
            if (stream := next(iter(tracks), None)) is None:
                kinds = ", ".join(sorted({item.type for item in container.streams})) or "nothing"
                raise DataError(f"{self.path} has no video stream, only {kinds}; give the file with the picture")
            if (context := stream.codec_context) is None:
                raise DataError(f"{self.path}: its codec is not known here; convert it to H.264 in an .mp4 file")
            if not 0 < stream.width * stream.height <= MOST_PIXELS:
                raise DataError(f"{self.path}: frames of {stream.width} x {stream.height} pixels; expected up to 8192 x 8192")
            stream.thread_type = "AUTO"
            self.source.update(stored_width=stream.width, stored_height=stream.height, codec=context.name)
            self.source["frames_per_second"] = float(stream.average_rate or 0) or None
            if container.metadata.get("comment") == SYNTHETIC:
                self.source["synthetic"] = True
            yield container, stream

    def _upright(self, frame: VideoFrame, stretch: float) -> np.ndarray | None:
        """RGB `[h, w, 3]` with square pixels, scaled and rotated; None if it cannot be converted or its size changed."""
        if not 0 < frame.width * frame.height <= MOST_PIXELS:
            return None
        wide = frame.width * (stretch if 1 / MOST_STRETCHED <= stretch <= MOST_STRETCHED else 1.0)
        scale = min(1.0, SHORT_SIDE / min(wide, frame.height))
        width, height = max(round(wide * scale), 1), max(round(frame.height * scale), 1)
        try:
            image = frame.to_ndarray(format="rgb24", width=width, height=height, interpolation="AREA")  # h w 3
        except (_pyav().error.FFmpegError, ValueError, MemoryError):
            return None
        matrix = frame.side_data.get("DISPLAYMATRIX")
        orientation = read_orientation(None if matrix is None else bytes(matrix))
        self.source.update(rotation=orientation.degrees, mirrored=orientation.mirrored)
        image = orientation.upright(image)  # h w 3
        return image if self.height in (0, image.shape[0]) and self.width in (0, image.shape[1]) else None


class _Clock:
    """Strictly increasing frame times, and the choice of at most 30 frames per second."""

    def __init__(self, rate: float):
        self._step = 1.0 / rate
        self._first: float | None = None
        self._slot = -1
        self.now = 0.0  # time of the last taken frame, in seconds
        self.last = -self._step  # time of the last frame, taken or not

    def takes(self, time: float | None) -> bool:
        if time is not None and self._first is None:
            self._first = time
        elapsed = None if time is None or self._first is None else time - self._first
        self.last = elapsed if elapsed is not None and elapsed > self.last else self.last + self._step
        slot = math.floor(self.last * MOST_RATE + TOLERANCE)
        if slot <= self._slot:
            return False
        self._slot, self.now = slot, self.last
        return True


def evenly(images: Iterable[np.ndarray], count: int) -> list[np.ndarray]:
    """`count` to 2 `count` evenly spaced images of a stream of unknown length; all images of a shorter stream."""
    kept: list[np.ndarray] = []
    every = 1
    for number, image in enumerate(images):
        if number % every == 0:
            kept.append(image)
            if len(kept) == 2 * count:
                kept, every = kept[::2], 2 * every
    return kept


def _pyav() -> Any:
    """PyAV, an optional dependency that training does not need."""
    try:
        import av
        import av.error
    except ModuleNotFoundError:
        raise DataError('reading a video needs PyAV, which is not installed: pip install "scoliojax[screen]"') from None
    return av


def _missing(container, stream, frames: int, last: float) -> int:
    """Number of frames that the file claims by its count, or else its duration, and that were not among the `frames` read.

    `last` is the time of the last frame in seconds. A few frames lost at a cut do not count.
    """
    promised = stream.frames
    if promised and container.format.name.startswith("mov"):  # where an edit list can hide frames
        promised = sum(not entry.is_discard for entry in stream.index_entries) or promised
    if not promised and last > 0.0:
        promised = round(_seconds(container, stream) * (frames - 1) / last)
    short = promised - frames
    return short if frames and short > max(2, 0.02 * promised) else 0


def _seconds(container, stream) -> float:
    """Claimed duration of the video stream in seconds; 0 if the file states only a duration that includes sound."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    if clock := re.fullmatch(r"(\d+):(\d+):(\d+(?:\.\d+)?)", stream.metadata.get("DURATION", "")):
        hours, minutes, seconds = (float(part) for part in clock.groups())
        return 3600.0 * hours + 60.0 * minutes + seconds
    return (container.duration or 0) / 1e6 if len(container.streams) == 1 else 0.0


def what_else(path: Path) -> str:
    """What a file is that cannot be a video by its first bytes, and the remedy, empty if unknown."""
    with path.open("rb") as file:
        kind = kind_of(file.read(BEGINNING))
    if not kind.what or isinstance(kind, Footage):
        return ""
    return f" is {kind.what}; {f'{kind.remedy}, and ' if kind.remedy else ''}{GIVE}"


def _why(path: Path) -> str:
    """Reason why a file does not open: in the MP4 family, an unfinished recording has no index (moov)."""
    boxes = []  # kinds of the outermost ones; what is inside may be any bytes
    with path.open("rb") as file:
        while len(boxes) < 1000 and len(head := file.read(16)) >= 8:
            size, kind = int.from_bytes(head[:4]), head[4:8]
            if kind == b"ftyp" and head[8:12] in PHOTOGRAPHS:
                break
            boxes.append(kind)
            size = int.from_bytes(head[8:16]) if size == 1 else size  # 1: a long size follows; 0: to the end of the file
            if size < 8:
                break
            file.seek(size - len(head), os.SEEK_CUR)
    if boxes[:1] == [b"ftyp"] and b"mdat" in boxes and b"moov" not in boxes:
        return "the recording was not finished or is cut off, its index (moov) is missing; copy or record it again"
    return "not a video that can be read; give a file such as .mp4, .mov, .avi, .mkv, .webm or .gif"
