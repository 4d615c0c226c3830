"""The one judge of masks: what is read as if it were plain masks, and what is refused in words, by every door alike.

A new kind of file is a row of `PICTURES` or `PICKLES`: how it is made of sixteen plain masks or silhouettes, and either None,
if it has to give the same silhouettes as these, or the words of its refusal.
"""

import errno
import gzip
import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from data_pipelines.masks import read_masks
from data_pipelines.schema import DataError
from data_pipelines.scoliosis1k import safe_pickle
from data_pipelines.scoliosis1k.safe_pickle import load_silhouettes
from data_pipelines.silhouettes import cut_sides, normalise_sequence
from data_pipelines.sources import open_prepared, prepare
from data_pipelines.synthetic import draw_walker, render_walk
from data_pipelines.video.walk import OR_POSES, read_walk
from tests.conftest import ROOT, assert_one_clear_error, run_here

RNG = np.random.default_rng(0)
SOFT = np.asarray(render_walk(draw_walker(RNG, 0), 16, RNG))  # s h w, with grey edges
PLAIN = np.where(SOFT > 127, 255, 0).astype(np.uint8)  # s h w
NOISE = RNG.integers(0, 256, (*PLAIN.shape, 3), dtype=np.uint8)  # s h w 3
INSIDE = PLAIN > 0  # s h w
SILHOUETTES = normalise_sequence(PLAIN)  # s 64 64
SHARP = np.where(SILHOUETTES > 127, 255, 0).astype(np.uint8)  # s 64 64


def png(pixels: np.ndarray, mode: str | None = None, **options) -> bytes:
    """A PNG with colours in the order red, green, blue, alpha; of another mode of PIL's, such as "1" or "P"."""
    picture, out = Image.fromarray(pixels), io.BytesIO()
    (picture.convert(mode) if mode else picture).save(out, "PNG", **options)
    return out.getvalue()


def animated(masks: np.ndarray) -> bytes:
    out, pictures = io.BytesIO(), [Image.fromarray(mask) for mask in masks]
    pictures[0].save(out, "PNG", save_all=True, append_images=pictures[1:])
    return out.getvalue()


def palette(labels: np.ndarray, *colours: int, clear: int | None = None) -> bytes:
    """A PNG of labels with their colours; `clear` is the label that is transparent."""
    picture, out = Image.fromarray(labels.astype(np.uint8)).convert("P"), io.BytesIO()
    picture.putpalette(colours)
    picture.save(out, "PNG", **({} if clear is None else {"transparency": clear}))
    return out.getvalue()


def cut_out(colours: np.ndarray, alpha: np.ndarray) -> bytes:
    return png(np.dstack([colours, alpha]))


def chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    place, found = 8, []
    while place < len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        found.append((name, content[place + 8 : place + 8 + size]))
        place += 12 + size
    return found


def whole(parts: list[tuple[bytes, bytes]]) -> bytes:
    """A PNG of chunks, whose checksums are right."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(body, zlib.crc32(name)))
        for name, body in parts
    )


def changed(content: bytes, change) -> bytes:
    """A PNG with another zlib stream under right checksums."""
    parts = chunks(content)
    data = change(b"".join(body for name, body in parts if name == b"IDAT"))
    return whole([parts[0], (b"IDAT", data), (b"IEND", b"")])


def header(width: int, height: int, data: bytes = b"") -> bytes:
    return whole([(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", data), (b"IEND", b"")])


def jpeg(mask: np.ndarray, quality: int = 90) -> bytes:
    return cv2.imencode(".jpg", mask, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()


def among(one: bytes):
    """Plain masks, and one other file in the middle."""
    return [png(mask) if number != 8 else one for number, mask in enumerate(PLAIN)]


def every(make, masks: np.ndarray = PLAIN) -> list[bytes]:
    return [make(mask) for mask in masks]


def interlaced(mask: np.ndarray) -> bytes:
    """As Adam7 stores a picture: seven smaller ones, one after another."""
    passes = [(0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1)]
    rows = [b"\0" + row.tobytes() for y, down, x, right in passes for row in mask[y::down, x::right]]
    height, width = mask.shape
    first = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 1)
    return whole([(b"IHDR", first), (b"IDAT", zlib.compress(b"".join(rows))), (b"IEND", b"")])


LABELS = np.where(INSIDE, 1 + np.arange(PLAIN.shape[1])[:, None] % 3, 0).astype(np.uint8)  # s h w; 0 to 3
GREYS = NOISE[..., 0]  # s h w
BESIDE = np.zeros_like(INSIDE)
BESIDE[:, 10:40, 4:14] = True
BESIDE &= ~INSIDE  # s h w; a bag, or a second person
TWO = np.where(INSIDE, 1, 2 * BESIDE)  # s h w; 0 to 2


def coloured(labels: np.ndarray, visible: int) -> list[bytes]:
    """Every label in its own colour, with one alpha, on a transparent ground."""
    colours = np.array([[0, 0, 0], [30, 144, 255], [220, 20, 60], [1, 200, 3]], np.uint8)
    return [cut_out(colours[one], np.where(one > 0, visible, 0).astype(np.uint8)) for one in labels]


def deep(colours: np.ndarray, alpha: np.ndarray) -> bytes:
    """A PNG of 16 bits with transparency; three equal colours."""
    return cv2.imencode(".png", np.dstack([colours, colours, colours, alpha]).astype(np.uint16))[1].tobytes()


def cropped(mask: np.ndarray) -> np.ndarray:
    return mask[np.ix_(mask.any(axis=1), mask.any(axis=0))]


def dusted(mask: np.ndarray) -> np.ndarray:
    """With a faint pixel in two opposite corners."""
    mask = mask.copy()
    mask[0, 0] = mask[-1, -1] = 1
    return mask


def thread(width: int) -> np.ndarray:
    """One white row in a picture of 33."""
    mask = np.zeros((33, width), np.uint8)
    mask[15] = 255
    return mask


PICTURES = {
    "0 and 255": (every(png), None),
    "0 and 1": (every(png, PLAIN // 255), None),
    "0 and 2": (every(png, PLAIN // 255 * 2), None),
    "0 and 128": (every(png, PLAIN // 255 * 128), None),
    "50 and 200": (every(png, np.where(INSIDE, 200, 50).astype(np.uint8)), None),
    "one bit": ([png(mask, "1") for mask in PLAIN], None),
    "16 bits, 0 and 1": (every(png, (PLAIN // 255).astype(np.uint16)), None),
    "16 bits, 0 and 65535": (every(png, PLAIN.astype(np.uint16) * 257), None),
    "16 bits, 0 and 255": (every(png, PLAIN.astype(np.uint16)), None),
    "three equal channels": ([png(mask, "RGB") for mask in PLAIN], None),
    "red on black": ([png(np.dstack([mask, 0 * mask, 0 * mask])) for mask in PLAIN], None),
    "alpha over a photograph": ([cut_out(*pair) for pair in zip(NOISE, PLAIN, strict=True)], None),
    "alpha over white": ([cut_out(np.full((*mask.shape, 3), 255, np.uint8), mask) for mask in PLAIN], None),
    "alpha over black": ([cut_out(np.zeros((*mask.shape, 3), np.uint8), mask) for mask in PLAIN], None),
    "alpha and grey": ([png(np.dstack(pair)) for pair in zip(GREYS, PLAIN, strict=True)], None),
    "alpha that is all opaque": ([cut_out(np.dstack([mask] * 3), np.full_like(mask, 255)) for mask in PLAIN], None),
    "alpha, one frame of nobody": (
        [cut_out(*pair) for pair in zip(NOISE, PLAIN, strict=True)] + [cut_out(NOISE[0], 0 * PLAIN[0])],
        None,
    ),
    "palette of two": ([palette(mask // 255, 0, 0, 0, 128, 0, 0) for mask in PLAIN], None),
    "palette of greys": ([palette(mask, *np.repeat(np.arange(256), 3)) for mask in PLAIN], None),
    "interlaced": (every(interlaced), None),
    "an empty frame among others": (among(png(0 * PLAIN[0]))[:8] + [png(0 * PLAIN[0])] + every(png, PLAIN[8:]), None),
    "two masks in one": ([cut_out(np.dstack([mask[::-1]] * 3), np.roll(mask, 9, 1)) for mask in PLAIN], "holds two masks"),
    "palette of labels": ([palette(one, *np.repeat(np.arange(256), 3)) for one in LABELS], "a label map"),
    "palette of coloured labels": (
        [palette(one, 0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 128) for one in LABELS],
        "is no mask but a picture with many colours",
    ),
    "labels 0 to 3": (every(png, LABELS), "has the values 0, 1, 2, 3, a label map; write the label of the person as 255"),
    "labels 0, 85, 170, 255": (every(png, LABELS * 85), "a label map"),
    "labels beside 255": (every(png, np.maximum(np.roll(PLAIN, 40, 2), LABELS)), "its background is not black"),
    "inverted": (every(png, 255 - PLAIN), "inverted (a black person)"),
    "inverted, 0 and 1": (every(png, 1 - PLAIN // 255), "inverted (a black person)"),
    "inverted with grey edges": (every(png, 255 - SOFT), "inverted (a black person)"),
    "one inverted": (among(png(255 - PLAIN[8])), "remove this frame"),
    "all white": (every(png, np.full_like(PLAIN, 255)), "every pixel is 255, so it shows nobody"),
    "one all white": (among(png(np.full_like(PLAIN[8], 255))), "remove this frame"),
    "one all 128": (among(png(np.full_like(PLAIN[8], 128))), "every pixel is 128, so it shows nobody; remove this frame"),
    "all 128": (every(png, np.full_like(PLAIN, 128)), "every pixel is 128, so it shows nobody"),
    "all black": (every(png, 0 * PLAIN), "none of its 16 masks shows a usable person"),
    "photographs": (every(png, NOISE), "is no mask but a picture"),
    "grey photographs": (every(png, GREYS), "is no mask but a picture"),
    "one grey photograph": (among(png(GREYS[8])), "is no mask but a picture"),
    "photograph cut out on black": (every(png, np.where(INSIDE, GREYS, 0).astype(np.uint8)), "is no mask but a picture"),
    "too dark": (every(png, (SOFT * 0.7).astype(np.uint8)), "its largest value is 178; scale the values"),
    "JPEG": (every(jpeg), "not a readable PNG but a JPEG; write masks as PNG"),
    "PNG that was JPEG": (every(lambda mask: png(cv2.imdecode(np.frombuffer(jpeg(mask), np.uint8), 0))), "is not black"),
    "an animated PNG": (among(animated(PLAIN[:3])), "is an animation, of which only the first frame would be read"),
    "palette with transparency": ([palette(mask // 255, 9, 99, 9, 70, 7, 9, clear=0) for mask in PLAIN], None),
    "GIF": (among(b"GIF89a" + bytes(30)), "but a GIF"),
    "text": (among(b"hello"), "not a readable PNG but something else"),
    "empty file": (among(b""), "not a readable PNG but empty"),
    "pointer of Git LFS": (among(b"version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "zlib checksum": (among(changed(png(PLAIN[8]), lambda data: data[:-1] + bytes([data[-1] ^ 1]))), "incorrect data check"),
    "zlib checksum of nothing": (among(changed(png(PLAIN[8]), lambda data: data[:-4] + bytes(4))), "incorrect data check"),
    "zlib checksum missing": (among(changed(png(PLAIN[8]), lambda data: data[:-4])), "its picture is cut off"),
    "chunk checksum": (among(png(PLAIN[8])[:-13] + b"x" + png(PLAIN[8])[-12:]), "the checksum of b'IDAT' is wrong"),
    "cut off": (among(png(PLAIN[8])[:-40]), "not a readable PNG (cut off)"),
    "cut off in the picture": (among(changed(png(PLAIN[8]), lambda data: data[: len(data) // 2])), "its picture is cut off"),
    "too few rows": (
        among(changed(png(PLAIN[8]), lambda data: zlib.compress(zlib.decompress(data)[: -PLAIN.shape[2] - 1]))),
        "fewer bytes than it claims",
    ),
    "too many rows": (
        among(changed(png(PLAIN[8]), lambda data: zlib.compress(zlib.decompress(data) + bytes(10**8)))),
        "more bytes than it claims",
    ),
    "100,000 x 100,000": (among(header(100_000, 100_000)), "100,000 x 100,000 pixels; at most"),
    "more than it can hold": (among(header(5_000, 5_000, zlib.compress(bytes(99)))), "cannot hold them"),
    "0 x 0": (among(header(0, 0)), "0 x 0 pixels"),
    "a bag of 128 beside 255": (every(png, np.where(BESIDE, 128, PLAIN).astype(np.uint8)), "128 fills whole areas"),
    "a person of 100 beside 255": (every(png, np.where(BESIDE, 100, SOFT).astype(np.uint8)), "100 fills whole areas"),
    "16 bits, instances 26001 and 26002": (
        every(png, np.where(TWO > 0, TWO + 26000, 0).astype(np.uint16)),
        "is a label map of 16 bits with the values 0, 26001, 26002",
    ),
    "16 bits, instances 1 and 300": (every(png, np.choose(TWO, (0, 1, 300)).astype(np.uint16)), "with the values 0, 1, 300"),
    "16 bits, 0 and 26001": (every(png, np.where(INSIDE, 26001, 0).astype(np.uint16)), None),
    "16 bits, alpha, colours 0 and 255": ([deep(mask, np.full(mask.shape, 65535)) for mask in PLAIN], None),
    "16 bits, alpha 0 and 65535": ([deep(*pair) for pair in zip(GREYS * 257.0, PLAIN * 257.0, strict=True)], None),
    "three colours on a transparent ground": (coloured(LABELS, 255), "is a label map of 3 colours on a transparent ground"),
    "three colours, half transparent": (coloured(LABELS, 128), "is a label map of 3 colours on a transparent ground"),
    "two colours on a transparent ground": (coloured(TWO, 255), "is a label map of 2 colours on a transparent ground"),
    "two colours, a third opaque": (coloured(TWO, 89), "is a label map of 2 colours on a transparent ground"),
    "one colour, a third opaque": (coloured(INSIDE.astype(int), 89), None),
    "palette of labels with transparency": (
        [palette(one, 0, 0, 0, 128, 0, 0, 0, 128, 0, 0, 0, 128, clear=0) for one in LABELS],
        "is a label map of 3 colours on a transparent ground",
    ),
    "six dim frames": (
        every(png, PLAIN[:10]) + every(png, PLAIN[10:] // 2),
        "grey in 6 of 16 (010.png, 011.png, 012.png and 3",
    ),
    "crops, three inverted": (
        [png(cropped(mask) if number > 2 else 255 - cropped(mask)) for number, mask in enumerate(PLAIN)],
        "000.png, 001.png, 002.png: inverted (a black person)",
    ),
    "faint pixels in two corners": (among(png(dusted(PLAIN[8]))), "008.png: faint pixels off the person"),
    "1,000,000 x 33": (among(png(thread(1_000_000))), "1,000,000 pixels wide, and what it shows is 1 high"),
    "no header": (among(whole([(b"IEND", b"")])), "not a readable PNG"),
}


def python2(array: np.ndarray, protocol: int) -> bytes:
    """As Python 2 with numpy 1 writes an array: its bytes are a text there."""
    shape = "".join(f"I{extent}\n" for extent in array.shape)
    if protocol == 0:
        text = repr(array.tobytes())[1:].encode("ascii")
        state = (
            b"(I1\n("
            + shape.encode()
            + b"tcnumpy\ndtype\n(S'u1'\nI0\nI1\ntR(I3\nS'|'\nNNNI-1\nI-1\nI0\ntbI00\nS"
            + text
            + b"\ntb."
        )
        return b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntS'b'\ntR" + state
    content = array.tobytes()
    state = (
        b"(K\x01("
        + shape.encode()
        + b"tcnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    )
    text = b"T" + struct.pack("<i", len(content)) + content
    return (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R" + state + b"\x89" + text + b"tb."
    )


class Calls:
    """Pickled as the call of a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def framed(count: int) -> np.ndarray:
    """So many frames along the last axis."""
    return np.ascontiguousarray(np.moveaxis(np.concatenate([SHARP] * 4)[:count], 0, 2))


class ByAxes:
    """Pickled by protocol 5 of numpy 2.4 as frames that lie last in memory."""

    def __reduce__(self):
        buffer = np.ascontiguousarray(np.moveaxis(SHARP, 0, 2)).tobytes()
        return sys.modules["numpy._core.numeric"].__dict__["_frombuffer"], (buffer, SHARP.dtype, (64, 64, 16), "K", (2, 0, 1))


BAG = np.zeros((64, 64), np.uint8)  # h w
BAG[5:20, 1:9] = 128
GOOD = pickle.dumps(SHARP)
NESTED = b"K\x01" + b"".join(b"q%ch%c\x86" % (level, level) for level in range(60))  # a tuple of itself twice, 60 deep


PICKLED = {
    **{f"protocol {number}": (pickle.dumps(SHARP, number), None) for number in range(pickle.HIGHEST_PROTOCOL + 1)},
    **{f"Python 2, protocol {number}": (python2(SHARP, number), None) for number in (0, 2)},
    "numpy 1": (pickle.dumps(SHARP, 3).replace(b"numpy._core", b"numpy.core"), None),
    "columns first": (pickle.dumps(np.asfortranarray(SHARP)), None),
    "columns first, protocol 5": (pickle.dumps(np.asfortranarray(SHARP), 5), None),
    "gzip": (gzip.compress(GOOD), None),
    "float32, whole": (pickle.dumps(SHARP.astype(np.float32)), None),
    "float64, of the other end": (pickle.dumps(SHARP.astype(">f8")), None),
    "float32, fractions": (pickle.dumps(SHARP.astype(np.float32) / 255), None),
    "int64": (pickle.dumps(SHARP.astype(np.int64)), None),
    "uint16": (pickle.dumps(SHARP.astype(np.uint16) * 257), None),
    "bool": (pickle.dumps(SHARP > 0), None),
    "0 and 1": (pickle.dumps(SHARP // 255), None),
    "0 and 2": (pickle.dumps(SHARP // 255 * 2), None),
    "list of frames": (pickle.dumps([*SHARP]), None),
    "tuple of frames, protocol 0": (pickle.dumps((*SHARP,), 0), None),
    "one channel, last": (pickle.dumps(SHARP[..., None]), None),
    "one channel, first": (pickle.dumps(SHARP[:, None]), None),
    "inverted": (pickle.dumps(255 - SHARP), "inverted (a black person)"),
    "inverted with grey edges": (pickle.dumps(255 - SILHOUETTES), "inverted (a black person)"),
    "all white": (pickle.dumps(np.full_like(SHARP, 255)), "every pixel is 255, so it shows nobody"),
    "all 128": (pickle.dumps(np.full_like(SHARP, 128)), "every pixel is 128, so it shows nobody"),
    "all black": (pickle.dumps(0 * SHARP), "every value is 0, so it shows nobody"),
    "all 0.5": (pickle.dumps(np.full(SHARP.shape, 0.5)), "every value is 0.5, so it shows nobody"),
    **{f"{kind}, without empty sides": (pickle.dumps(make(cut_sides(SHARP))), words) for kind, (make, words) in {
        "inverted": (lambda frames: 255 - frames, "inverted (a black person)"),
        "inverted, fractions": (lambda frames: 1 - frames.astype(np.float32) / 255, "inverted (a black person)"),
        "all 128": (lambda frames: np.full_like(frames, 128), "every pixel is 128, so it shows nobody"),
        "labels": (lambda frames: frames // 255 * (np.arange(64)[:, None] % 3 + 1).astype(np.uint8), "a label map"),
        "labels on white": (lambda frames: 255 - frames // 255 * (np.arange(64)[:, None] % 3 + 1).astype(np.uint8), "inverted"),
        "raised": (lambda frames: frames // 255 + np.uint8(7), None),
    }.items()},
    "labels": (pickle.dumps(SHARP // 255 * (np.arange(64)[:, None] % 3 + 1).astype(np.uint8)), "a label map"),
    "photographs": (pickle.dumps(RNG.integers(0, 256, SHARP.shape, dtype=np.uint8)), "is no mask but a picture"),
    "not whole": (pickle.dumps(SILHOUETTES + 0.25), "dtype float64 with values 0.25 to 255.25; expected uint8"),
    "not a number": (pickle.dumps(np.where(SHARP > 0, np.nan, 0.0)), "values that are no numbers"),
    "negative": (pickle.dumps(SILHOUETTES.astype(np.int16) - 128), "dtype int16 with values -128 to 127"),
    "colour": (pickle.dumps(np.stack([SHARP] * 3, -1)), "is in colour"),
    "one picture": (pickle.dumps(SHARP[0]), "shape (64, 64) is one picture"),
    "raw masks": (pickle.dumps(PLAIN), "is of another size: write raw masks as PNG"),
    "lists of different shapes": (pickle.dumps([SHARP[0], SHARP[0, 1:]]), "a list of arrays of different shapes or types"),
    "list of numbers": (pickle.dumps([1, 2]), "holds a list of int"),
    "empty list": (pickle.dumps([]), "holds an empty list"),
    "a number": (pickle.dumps(7), "holds a int"),
    "dict": (pickle.dumps({"silhouettes": SHARP}), "holds a dict"),
    "set": (pickle.dumps({1, 2}, 4), "holds a set"),
    "two pickles": (GOOD + GOOD, "holds more than one pickle"),
    "objects": (pickle.dumps(np.array([None, "a"], dtype=object)), "an array of something else than numbers"),
    "records": (pickle.dumps(np.zeros(3, "u1,u1")), "holds a dict"),
    "texts": (pickle.dumps(np.array(["a"])), "an array of something else than numbers"),
    ".npy": (b"\x93NUMPY" + bytes(99), "it is a numpy array (.npy)"),
    "zip": (b"PK\x03\x04" + bytes(99), "it is a zip file"),
    "bzip2": (b"BZh91AY" + bytes(99), "it is a bzip2 file; unpack it"),
    "PNG": (png(PLAIN[0]), "it is a PNG"),
    "web page": (b"<!DOCTYPE html><html></html>", "it is a web page"),
    "text": (b"hello", "it does not end as a pickle does"),
    "empty": (b"", "it is empty"),
    "cut off": (GOOD[:-100], "not a readable pickle"),
    "cut off, gzip": (gzip.compress(GOOD)[:-100], "not a readable pickle"),
    "names of numpy alone": (b"cnumpy\nndarray\n.", "without the bytes of an array"),
    # Hostile ones
    "calls numpy.ndarray(shape)": (b"cnumpy\nndarray\n((K\x10K@K@tU\x02u1tR.", "holds numpy's ndarray without the bytes"),
    "calls numpy.empty": (pickle.dumps(Calls(np.empty, (9, 64, 64))), "no numpy array; refused"),
    "calls eval": (pickle.dumps(Calls(eval, "1")), "no numpy array; refused"),
    "a tensor of torch": (b"ctorch._utils\n_rebuild_tensor_v2\n.", "which is a PyTorch tensor, no numpy array; refused"),
    "begins with another size": (GOOD.replace(b"K\x00\x85", b"J\xff\xff\xff\x7f\x85"), "an array that does not begin empty"),
    "claims more than it has": (GOOD.replace(b"K\x10K@K@\x87", b"K\x11K@K@\x87"), "needs 69,632 bytes, and there are 65,536"),
    "claims 2 GB of bytes": (b"\x80\x04B\xff\xff\xff\x7f.", "not a readable pickle"),
    "claims 4 EB of bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", "not a readable pickle"),
    "claims a frame of 4 EB": (b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"N.", "a frame of 4,611,686"),
    "a memo of 4 billion": (b"\x80\x04Nr\xff\xff\xff\xff.", "as the number of what is kept"),
    "a key that takes for ever to hash": (b"\x80\x02}" + NESTED + b"K\x01s.", "holds a dict"),
    "a set that takes for ever to hash": (b"\x80\x04\x8f(" + NESTED + b"\x90.", "holds a set"),
    "a type that takes for ever to print": (
        b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(U\x01acnumpy\ndtype\n(" + NESTED + b"tRK\x01\x85U\x01CtR.",
        "an array of something else than numbers",
    ),
    "a shape that takes for ever to compare": (
        b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(U\x01acnumpy\ndtype\n(U\x02u1tR" + NESTED + b"U\x01CtR.",
        "an array without a shape",
    ),
    "one array a million times": (
        b"\x80\x02(cnumpy.core.numeric\n_frombuffer\n(T\xff\xff\x00\x00"
        + bytes(65535)
        + b"cnumpy\ndtype\n(U\x02u1tR(J\xff\xff\x00\x00tU\x01CtRq\x01"
        + b"h\x01" * 400_000 + b"l.",
        "its arrays need 26,214",
    ),
    "a million operations": (b"\x80\x02(" + b"N" * 1_100_000 + b"l.", "more than 1,000,000 operations"),
    "frames last in memory, by numpy 2.4": (pickle.dumps(ByAxes(), 5), None),
    "frames last in memory, of axes that are none": (
        pickle.dumps(ByAxes(), 5).replace(b"K\x02K\x00K\x01\x87", b"K\x02K\x00K\x02\x87"),
        "without an order of its axes",
    ),
    "gzip of two members": (gzip.compress(GOOD[:1000]) + gzip.compress(GOOD[1000:]), None),
    "gzip filled up with zeros": (gzip.compress(GOOD) + bytes(512), None),
    "gzip of two pickles": (gzip.compress(GOOD) + gzip.compress(GOOD), "holds more than one pickle"),
    "gzip and something else": (gzip.compress(GOOD) + b"abc", "BadGzipFile"),
    "gzip with a wrong checksum": (gzip.compress(GOOD)[:-8] + b"abcd" + gzip.compress(GOOD)[-4:], "CRC check failed"),
    "gzip of a .npy file": (gzip.compress(b"\x93NUMPY" + bytes(99)), "it is a numpy array (.npy) in gzip"),
    "a gzip of a million members": (gzip.compress(b"") * 10**6, "more than 10,000 members"),
    "a bag of 128 beside 255": (pickle.dumps(np.maximum(SHARP, BAG)), "128 fills whole areas"),
    "six dim frames": (
        pickle.dumps(np.concatenate([SHARP[:10], SHARP[10:] // 2])),
        "grey in 6 of 16 (frame 10, frame 11, frame 12 and 3",
    ),
    "one inverted": (
        pickle.dumps(np.concatenate([SHARP[:9], 255 - SHARP[9:10], SHARP[10:]])),
        "frame 9: inverted (a black person)",
    ),
    "five inverted": (
        pickle.dumps(np.concatenate([255 - SHARP[:5], SHARP[5:]])),
        "frame 0, frame 1, frame 2 and 2 more: inverted",
    ),
    "lying": (
        pickle.dumps(np.ascontiguousarray(SHARP.transpose(0, 2, 1))),
        "give the axes in the order [frames, rows, columns]",
    ),
    "64 frames, last": (pickle.dumps(framed(64)), "give the axes in the order [frames, rows, columns]"),
    "44 frames, last": (pickle.dumps(framed(44)), "give the axes in the order [frames, rows, columns]"),
    "a gzip of 1 GB": (gzip.compress(bytes(2**30), 1), "unpacks to more than"),
    "digits": (b"L" + b"9" * 100_000 + b"L\n.", "not a readable pickle"),
}  # fmt: skip


def write_view(tree: Path, number: int, files: dict[str, bytes]) -> Path:
    view = tree / f"{number:05d}" / "Positive" / "000_180"
    view.mkdir(parents=True)
    for name, content in files.items():
        (view / name).write_bytes(content)
    return view


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """A tree with every kind as a sequence, and what `prepare` makes of it: silhouettes, or the line of a refusal, by kind."""
    tree, out = (tmp_path_factory.mktemp("kinds") / name for name in ("tree", "out"))
    contents = [{f"{frame:03d}.png": one for frame, one in enumerate(files)} for files, _ in PICTURES.values()]
    contents += [{"000_180.pkl": content} for content, _ in PICKLED.values()]
    views = [write_view(tree, number, files) for number, files in enumerate(contents)]
    skipped = prepare(str(tree), out, skip_bad=True)
    data = open_prepared(out)
    kept = {int(name): data.read(row) for row, name in enumerate(data.sequences)}
    found: dict[tuple[str, str], np.ndarray | str] = {}
    for number, key in enumerate([*(("png", kind) for kind in PICTURES), *(("pkl", kind) for kind in PICKLED)]):
        lines = [line for line in skipped if str(views[number]) in line]
        assert len(lines) + (number in kept) == 1, (key, lines)
        found[key] = kept[number] if number in kept else lines[0]
    return tree, views, found


def assert_found(found: np.ndarray | str, words: str | None, expected: np.ndarray) -> None:
    if words is None:
        assert isinstance(found, np.ndarray), found
        np.testing.assert_array_equal(found, expected)
    else:
        assert isinstance(found, str)
        assert words in found
        assert "\n" not in found
        assert len(found) < 600
        assert any(verb in found for verb in ("give", "write", "remove", "scale", "cut", "copy", "not a readable pickle")), (
            found
        )


@pytest.mark.parametrize("kind", PICTURES)
def test_pictures_are_read_or_refused_the_same_by_prepare_and_screen(doors, kind):
    _, views, found = doors
    words = PICTURES[kind][1]
    assert_found(found["png", kind], words, SILHOUETTES)
    view = views[list(PICTURES).index(kind)]
    if words is None:
        np.testing.assert_array_equal(read_walk(view, None).silhouettes, SILHOUETTES)
    else:
        with pytest.raises(DataError) as caught:
            read_walk(view, None)
        assert str(caught.value) == found["png", kind]


@pytest.mark.parametrize("kind", PICKLED)
def test_pickles_are_read_or_refused_the_same_by_prepare_and_screen(doors, kind):
    _, views, found = doors
    words = PICKLED[kind][1]
    assert_found(found["pkl", kind], words, SHARP)
    path = views[len(PICTURES) + list(PICKLED).index(kind)] / "000_180.pkl"
    if words is None:
        np.testing.assert_array_equal(read_walk(path, None).silhouettes, SHARP)
    else:
        begin = time.monotonic()
        with pytest.raises(DataError) as caught:
            read_walk(path, None)
        assert str(caught.value).replace(OR_POSES, "") == found["pkl", kind]
        assert time.monotonic() - begin < 20


def test_silhouettes_without_their_empty_sides_are_the_same_to_the_network(tmp_path):
    (tmp_path / "walk.pkl").write_bytes(pickle.dumps(cut_sides(SILHOUETTES)))
    found = load_silhouettes(tmp_path / "walk.pkl")
    assert found.shape == SILHOUETTES.shape
    np.testing.assert_array_equal(cut_sides(found), cut_sides(SILHOUETTES))


@pytest.mark.parametrize("seed", range(3))
def test_masks_with_soft_edges_stay_as_they_are(tmp_path, seed):
    """As resizing makes them, by every way of it: not one grey level is changed before normalisation."""
    for way in (cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_AREA, cv2.INTER_LANCZOS4):
        scale = np.random.default_rng(seed).uniform(0.4, 3)
        masks = [cv2.resize(mask, None, fx=scale, fy=scale, interpolation=way) for mask in (PLAIN, SOFT)[seed % 2]]
        for number, mask in enumerate(masks):
            cv2.imwrite(str(tmp_path / f"{number:03d}.png"), mask)
        found, kept = read_masks([tmp_path / f"{number:03d}.png" for number in range(16)], tmp_path)
        np.testing.assert_array_equal(found, normalise_sequence(masks))
        assert kept.tolist() == list(range(16))


def test_people_who_touch_the_borders_and_specks_are_masks(tmp_path):
    """Of a good sequence: cut out closely, half out of the picture, a speck, dim, and as large as the picture."""
    rows, columns = (np.flatnonzero(INSIDE.any(axis=axis)) for axis in ((0, 2), (0, 1)))
    close = PLAIN[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    speck = np.zeros_like(PLAIN[0])
    speck[50:57, 50:56] = 255
    masks = [*close, *PLAIN[:, :, : PLAIN.shape[2] // 2], speck, PLAIN[0] // 2, cv2.resize(PLAIN[0], (40, 400))[100:200]]
    for number, mask in enumerate(masks):
        cv2.imwrite(str(tmp_path / f"{number:03d}.png"), mask)
    found, _ = read_masks(sorted(tmp_path.iterdir()), tmp_path)
    np.testing.assert_array_equal(found, normalise_sequence(masks))


def sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**30)


def listen(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(str(path))


def circle(path: Path) -> None:
    path.symlink_to(path)


def hidden(path: Path) -> None:
    path.symlink_to(path.with_name("not-there"))


NO_FILES = {  # what may stand where a file is expected, and what is said about it
    "FIFO": (os.mkfifo, "it is a FIFO, no file; remove it"),
    "socket": (listen, "it is a socket, no file; remove it"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device, no file; remove it"),
    "folder": (Path.mkdir, "it is a folder, no file; remove it"),
    "100 GB of nothing": (sparse, "107,374,182,400 bytes; at most"),
    "dead link": (hidden, "which is not there; bring it back"),
    "circle": (circle, "which is not there; bring it back"),
}


@pytest.fixture(scope="module")
def no_files(tmp_path_factory):
    """A tree with one good sequence and every kind of what is no file, as a pickle and as a mask; the paths of the latter."""
    tree = tmp_path_factory.mktemp("n") / "t"  # the name of a socket has to be short
    write_view(tree, 0, {"000_180.pkl": GOOD})
    paths = []
    for number, (make, _) in enumerate([*NO_FILES.values()] * 2, 1):
        name = "w.pkl" if number > len(NO_FILES) else "008.png"
        masks = {} if name == "w.pkl" else {f"{frame:03d}.png": png(mask) for frame, mask in enumerate(PLAIN) if frame != 8}
        paths.append(write_view(tree, number, masks) / name)
        make(paths[-1])
    return tree, paths


def test_only_regular_files_are_opened_and_all_others_are_named(no_files, tmp_path):
    tree, paths = no_files
    skipped = prepare(str(tree), tmp_path / "out", skip_bad=True)
    assert len(skipped) == len(paths)
    for path, (_, words) in zip(paths, [*NO_FILES.values()] * 2, strict=True):
        assert [words in line for line in skipped if str(path) in line] == [True], path
    assert open_prepared(tmp_path / "out").sequences == ("00000",)
    result = run_here("data_pipelines.prepare", "--input", tree, "--output", tmp_path / "other")
    assert result.returncode == 2
    assert_one_clear_error(result, f"and {len(paths) - 1} more" if "more" in result.stderr else str(paths[0]))
    assert not (tmp_path / "other").exists()


READ = """
import re, sys, time
from pathlib import Path
import cv2
from data_pipelines.schema import DataError
from data_pipelines.video.walk import checksum, inputs_of, read_walk

for path in map(Path, sys.argv[1:]):
    for name, where, read in (
        ("file", path, lambda path: inputs_of(path) and read_walk(path, None)),
        ("folder", path.parent, lambda path: inputs_of(path) and read_walk(path, None)),
        ("checksum", path.parent, checksum),
    ):
        begin, what = time.monotonic(), "is read"
        try:
            read(where)
        except DataError as error:
            what = "is refused"
        assert time.monotonic() - begin < 20, path
        print(path, name, what)
peak = re.search(r"VmHWM:\\s+([0-9]+) kB", Path("/proc/self/status").read_text())  # ru_maxrss has that of the parent in it
print("peak", int(peak[1]) // 1024)
"""


@pytest.mark.slow
def test_hostile_files_take_little_memory_and_time(doors, no_files, tmp_path):
    """Every refused kind, whatever is no file, and the largest pictures that are decoded at all."""
    _, views, found = doors
    paths = [
        next(view.glob("*8.png"), view / "000_180.pkl")
        for view, result in zip(views, found.values(), strict=True)
        if isinstance(result, str)
    ]
    large = np.zeros((4096, 8192, 4), np.uint8)
    large[::2] = 255
    (tmp_path / "greys").mkdir()
    greys = np.where(np.arange(64)[:, None] % 2, 100, np.arange(64) % 2 * 50 + 33).astype(np.uint8)  # h w
    greys = gzip.compress(pickle.dumps(np.broadcast_to(greys, (32_000, 64, 64))), 1)
    (tmp_path / "greys" / "000_180.pkl.gz").write_bytes(greys)
    hostile = [tmp_path / "000.png", tmp_path / "greys" / "000_180.pkl.gz"]
    hostile[0].write_bytes(cv2.imencode(".png", large, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes())
    result = subprocess.run(
        [sys.executable, "-c", READ, *map(str, [*paths, *no_files[1], *hostile])],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == 3 * (len(paths) + len(no_files[1]) + len(hostile)) + 1
    assert not [line for line in lines if line.endswith("file is read")]
    assert int(lines[-1].split()[-1]) < 1000, lines[-1]  # MB; Python, numpy and OpenCV are 150 of them


@pytest.mark.slow
@pytest.mark.parametrize("packed", [True, False])
def test_large_pickles_are_read_one_at_a_time_and_small_ones_together(tmp_path, monkeypatch, packed):
    monkeypatch.setattr(safe_pickle, "LARGE", 2**17)
    files = [tmp_path / "small.pkl", tmp_path / "large.pkl"]
    for file, frames in zip(files, (20, 40), strict=True):
        content = pickle.dumps(np.repeat(SILHOUETTES[:1], frames, axis=0))
        file.write_bytes(gzip.compress(content) if packed else content)
    with ThreadPoolExecutor(2) as pool:
        with safe_pickle.LARGE_ONES:
            small, large = (pool.submit(load_silhouettes, file) for file in files)
            assert len(small.result(20)) == 20
            with pytest.raises(TimeoutError):
                large.result(0.3)
        assert len(large.result(20)) == 40


@pytest.mark.parametrize("kind", [np.float16, np.int16])
def test_the_largest_gzip_that_is_taken_needs_less_than_a_gigabyte(tmp_path, kind):
    """It has 1 MB, and each of its numbers becomes one grey level; the last frame is wrong or right."""
    frames = np.zeros((130_000_000 // 4096 // np.dtype(kind).itemsize, 64, 64), kind)
    frames[:, 20:40, 20:40] = 1
    frames[:, 40, 20:40] = 0.5 if kind is not np.int16 else 0
    for name, value in (("right", 0), ("wrong", 0.3 if kind is not np.int16 else -3)):
        frames[-1, 0, 0] = value
        (tmp_path / f"{name}.pkl").write_bytes(gzip.compress(pickle.dumps(frames * (255 if kind is np.int16 else 1)), 1))
    result = subprocess.run(
        [sys.executable, "-c", READ, tmp_path / "right.pkl", tmp_path / "wrong.pkl"],
        cwd=ROOT, capture_output=True, encoding="utf-8", check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert int(lines[-1].split()[-1]) < 1000, lines


def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def refuse(path, flags):  # as for every user but root
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    view = write_view(tmp_path, 0, {"000_180.pkl": GOOD})
    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(DataError, match=r"000_180\.pkl: cannot be read \(Permission denied\); change its permissions"):
        load_silhouettes(view / "000_180.pkl")
