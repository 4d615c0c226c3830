"""Reading of a mask PNG of any colour type into grey values; whatever is damaged, huge or ambiguous is refused by name."""

import contextlib
import struct
import threading
import zlib
from pathlib import Path

import numpy as np

from data_pipelines.files import kind_of, read_file
from data_pipelines.schema import DataError, abbreviate

MOST_BYTES = 2**27  # of a PNG file
MOST_PIXELS = 2**25  # of a mask; a frame of 8K video has 33.2 million
LARGE = 2**23  # pixels; masks larger than 4K video are decoded one at a time: memory does not grow with the threads
LARGE_ONES = threading.Lock()
MOST_DEFLATED = 1032  # bytes that a byte of deflate can become
PIECE = 2**20  # bytes that are inflated at a time
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the PNG colour types
SIGNATURE = b"\x89PNG\r\n\x1a\n"
MOST_LABELS = 16  # so many colours or, of 16 bits, grey levels are labels; photographs have more
AS_MASK = "write the person as 255 and all others as 0"
SAMPLE = 2**16  # pixels of a cut-out whose colours are counted
LEAST_SHARE, MOST_SHARE = 0.01, 0.9  # of a cut-out: smallest area of a label, and what the labels together fill
PASSES = ((0, 8, 0, 8), (0, 8, 4, 8), (4, 8, 0, 4), (0, 4, 2, 4), (2, 4, 0, 2), (0, 2, 1, 2), (1, 2, 0, 1))  # of Adam7: y, x


def read_mask(path: Path) -> np.ndarray:
    """Grey values of a mask PNG, uint8 `[h, w]`; raises `DataError` naming a file that is none.

    Of a picture with transparency the mask is the alpha channel. Two colours become two greys; 16 bits become 8. Sizes are
    judged before anything is decoded, and every checksum is checked, zlib's included.
    """
    content = read_file(path, MOST_BYTES)
    if not content.startswith(SIGNATURE):
        what, remedy = kind_of(content)
        what = what + f" ({remedy})" * bool(remedy) or ("something else" if content else "empty")
        raise DataError(f"{path}: not a readable PNG but {what}; write masks as PNG, 0 and 255, one channel")
    try:
        pixels = _check(content)
        with LARGE_ONES if pixels > LARGE else contextlib.nullcontext():
            return _grey(content)
    except _NoMaskError as error:
        raise DataError(f"{path} {error}") from None
    except (ValueError, struct.error, zlib.error, MemoryError) as error:
        raise DataError(f"{path}: not a readable PNG ({error}); copy or write it again") from None


class _NoMaskError(Exception):
    """A whole PNG that is no mask."""


def _check(content: bytes) -> int:
    """Number of pixels; raises `ValueError` or `zlib.error` for a PNG that is damaged, or that holds less than it claims.

    An animation is refused as no mask.
    """
    place, header, data, ended = len(SIGNATURE), b"", [], False
    while not ended:
        size, name = struct.unpack_from(">I4s", content, place)
        body = content[place + 8 : place + 8 + size]
        if len(body) < size or len(content) < place + 12 + size:
            raise ValueError("cut off")
        if zlib.crc32(body, zlib.crc32(name)) != struct.unpack_from(">I", content, place + 8 + size)[0]:
            raise ValueError(f"the checksum of {name!r} is wrong")
        if name == b"acTL":
            raise _NoMaskError("is an animation, of which only the first frame would be read; write one PNG a frame")
        header = body if name == b"IHDR" else header
        data += [body] if name == b"IDAT" else []
        ended = name == b"IEND"
        place += 12 + size
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if not 0 < width * height <= MOST_PIXELS:
        raise ValueError(f"{width:,} x {height:,} pixels; at most {MOST_PIXELS:,} are read")
    bits = CHANNELS.get(colour, 1) * depth
    passes = PASSES if interlaced else ((0, 1, 0, 1),)
    sizes = [(-(-(height - y) // down), -(-(width - x) // right)) for y, down, x, right in passes]
    expected = sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in sizes if rows > 0 and columns > 0)
    packed = b"".join(data)
    if expected > MOST_DEFLATED * len(packed):
        raise ValueError(f"{width:,} x {height:,} pixels are claimed, and {len(packed):,} bytes cannot hold them")
    inflater, found = zlib.decompressobj(), 0
    while not inflater.eof and found <= expected:
        piece = inflater.decompress(packed, PIECE)
        if not piece and not inflater.eof:
            raise ValueError("its picture is cut off")
        found, packed = found + len(piece), inflater.unconsumed_tail
    if found != expected:
        raise ValueError(f"its picture has {'more' if found > expected else 'fewer'} bytes than it claims")
    return width * height


def _grey(content: bytes) -> np.ndarray:
    """Grey values of a PNG that was checked, uint8 `[h, w]`."""
    import cv2  # imported here so that commands answer --help without it

    try:
        picture = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)  # h w or h w c
    except cv2.error as error:
        raise ValueError(error.err) from None
    if picture is None:
        raise ValueError("the decoder refuses it")
    if picture.ndim == 2:
        return _eight_bits(picture)  # h w
    colours, alpha = _eight_bits(np.ascontiguousarray(picture[..., :3])), picture[..., 3:]  # h w 3, h w 0 or h w 1
    if alpha.size and (alpha := _eight_bits(alpha[..., 0])).min() < 255 and (alpha.min() != alpha.max() or not alpha.any()):
        _refuse_labels(colours[(alpha == alpha.max()) & (alpha > 0)])
        return np.ascontiguousarray(alpha)  # h w
    if (colours[..., :1] == colours[..., 1:]).all():
        return np.ascontiguousarray(colours[..., 0])  # h w
    if _count(colours.reshape(-1, 3)) > 2:
        raise _NoMaskError("is no mask but a picture with many colours; write masks as grey, 0 and 255")
    grey = cv2.cvtColor(colours, cv2.COLOR_BGR2GRAY)  # h w
    if grey.min() == grey.max():
        raise _NoMaskError("has two colours that are equally bright; write masks as grey, 0 and 255")
    return grey


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Values as uint8, of 16 bits the upper 8, unless they are 8 bits in the place of 16; raises for labels merged by that."""
    import cv2  # imported here so that commands answer --help without it

    if values.dtype == np.uint8:
        return values
    if values.max() <= 255:
        return values.astype(np.uint8)
    upper = np.right_shift(values, 8).astype(np.uint8)  # h w, or h w 3
    if values.ndim == 2:
        given = np.flatnonzero(cv2.calcHist([np.ascontiguousarray(values)], [0], None, [2**16], [0, 2**16]))  # level
        given = np.append(given[given < 255 << 8], given[given >= 255 << 8][:1])  # level; nearly white is white
        if len(given) > len(np.unique(given >> 8)) <= MOST_LABELS:
            raise _NoMaskError(f"is a label map of 16 bits with the values {abbreviate(given, 4)}; {AS_MASK}")
    return upper


def _refuse_labels(colours: np.ndarray) -> None:
    """Raise for colours of a cut-out, `[pixels, 3]`, that are few and fill areas: people or parts, each in its own colour."""
    colours = colours[:: max(1, len(colours) // SAMPLE)].astype(np.uint32)  # pixel 3
    packed = colours[:, 0] << 16 | colours[:, 1] << 8 | colours[:, 2]  # pixel
    numbers, counts = np.unique(packed, return_counts=True)  # colour
    order = np.argsort(-counts)  # colour
    numbers, counts = numbers[order], counts[order]  # colour
    filling = int((counts[:MOST_LABELS] >= LEAST_SHARE * counts.sum()).sum())
    if filling < 2 or counts[:MOST_LABELS].sum() < MOST_SHARE * counts.sum():
        return
    if filling == 2 and {*numbers[:2].tolist()} == {0, 0xFFFFFF}:
        what = "holds two masks, one in its colours and one in its transparency"
        raise _NoMaskError(f"{what}; write one of them as grey, 0 and 255")
    raise _NoMaskError(f"is a label map of {filling} colours on a transparent ground; {AS_MASK}")


def _count(colours: np.ndarray) -> int:
    """Number of different colours of `[pixels, 3]`: 0, 1, 2, or 3 for more."""
    count = 0
    while count < 3 and len(colours):
        colours = colours[(colours != colours[0]).any(axis=1)]  # pixel 3
        count += 1
    return count
