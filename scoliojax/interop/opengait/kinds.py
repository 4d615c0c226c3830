"""What a file is that is given as a checkpoint and is none."""

from pathlib import Path
from typing import BinaryIO

from data_pipelines.files import kind_of
from scoliojax.errors import RunError

GIVE = "give a checkpoint that torch.save wrote, e.g. ScoNet-20000.pt"


def refuse_others(path: Path, file: BinaryIO) -> None:
    """Raise `RunError` with what the file is, where its first bytes are those of another kind."""
    head = file.read(1024)
    file.seek(0)
    if head.startswith(b"PK\3\4"):  # as a checkpoint does; what is in the archive says more
        return
    kind, remedy = kind_of(head)
    if not head:
        kind, remedy = "empty", "copy or download it again"
    elif not any(head):
        kind, remedy = "full of zeros where it begins: it was not written to its end", "copy or download it again"
    elif not kind and (text := _text(head)) is not None:
        kind = f"a text file that begins {text[:40]!r}"
    if kind:
        raise RunError(f"{path} is {kind}; {remedy or GIVE}")


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
