"""What a file is that is given as a checkpoint and is none."""

from pathlib import Path
from typing import BinaryIO

from scoliojax.errors import RunError

GIVE = "give a checkpoint that torch.save wrote, e.g. ScoNet-20000.pt"
SIGNS = (  # how files of other kinds begin
    (b"version https://git-lfs", "a git-lfs pointer, which stands for a file that was not fetched; run git lfs pull"),
    (b"\x1f\x8b", "compressed (gzip); unpack it first"),
    (b"BZh", "compressed (bzip2); unpack it first"),
    (b"\xfd7zXZ", "compressed (xz); unpack it first"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd); unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"Rar!", "a RAR archive; unpack it first"),
    (b"\x89HDF", "an HDF5 file, as Keras writes it"),
    (b"\x93NUMPY", "a numpy array"),
    (b"GGUF", "a GGUF file"),
    (b"\x89PNG", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"%PDF", "a PDF document"),
)


def refuse_others(path: Path, file: BinaryIO) -> None:
    """Raise `RunError` with what the file is, where its first bytes are those of another kind."""
    head = file.read(1024)
    kind = next((kind for sign, kind in SIGNS if head.startswith(sign)), None)
    if not head:
        kind = "empty; copy or download it again"
    elif not any(head):
        kind = "full of zeros where it begins: it was not written to its end; copy or download it again"
    elif head[257:262] == b"ustar":
        kind = "a tar archive; unpack it first"
    elif head[8:10] == b'{"' and int.from_bytes(head[:8], "little") < 2**40:
        kind = "a safetensors file"
    elif head[:1] == b"\x08" and head[1:2] < b"\x20" and head[2:3] in (b"\x12", b"\x1a", b"\x3a"):
        kind = "an ONNX network"
    elif head.lstrip().lower().startswith((b"<!doctype", b"<html", b"<?xml")):
        kind = "a web page, such as a download gives where it needs a login; download it with the browser"
    elif not kind and (text := _text(head)) is not None:
        kind = f"a text file that begins {text[:40]!r}"
    if kind:
        raise RunError(f"{path} is {kind}" + ("" if ";" in kind else f"; {GIVE}"))
    file.seek(0)


def _text(head: bytes) -> str | None:
    """The first bytes of a file as text; None where they are none."""
    encoding = "utf-16" if head[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = head.decode(encoding)
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            return None
        text = head.decode(encoding, errors="ignore")  # the end of `head` divides a sign
    return text if all(sign.isprintable() or sign.isspace() for sign in text) else None
