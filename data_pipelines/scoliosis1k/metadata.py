"""What a prepared set remembers of the tree that it was made from, and what is said of it."""

import hashlib
import json
import os
from collections.abc import Mapping

from data_pipelines.files import remarks
from data_pipelines.schema import abbreviate
from data_pipelines.scoliosis1k.release_tree import ReleasedSequence


def fingerprint(sequences: list[ReleasedSequence], settings: str = "", identities: bool = True) -> str:
    """Sixteen hexadecimal digits that change with any file's path, size or modification time, and with `settings`.

    Also with any id, class or name of a link, wherever the links lead; without `identities` as sets of old have it.
    """
    digest = hashlib.sha256(settings.encode())
    for sequence in sequences:
        folder, states = str(sequence.folder.resolve()), sequence.states
        if identities:
            digest.update(os.fsencode(f"{sequence.sequence}|{sequence.label}|{'|'.join(sequence.names)}\n"))
        for name, size, time in zip(sequence.names, states.sizes, states.times, strict=True):
            path = states.links.get(name) or f"{folder}/{name}"
            digest.update(os.fsencode(f"{path}|{size}|{time}\n" if size >= 0 else f"{path}|cannot be read\n"))
    return digest.hexdigest()[:16]


def is_of(metadata: Mapping, sequences: list[ReleasedSequence], settings: str) -> bool:
    """True for metadata of a set that was prepared from these sequences and settings."""
    if metadata["source"] == fingerprint(sequences, settings):
        return True
    labels = {one.sequence: one.label for one in sequences}
    alike = all(labels.get(name) == label for name, label in zip(metadata["sequences"], metadata["labels"], strict=True))
    return alike and metadata["source"] == fingerprint(sequences, settings, identities=False)


def prepared_remarks(metadata: Mapping) -> list[str]:
    """What a prepared set does not hold of the sequences that it holds, a line for each kind; sets of old say nothing."""
    dropped = {name: count for name, count in zip(metadata["sequences"], metadata.get("dropped", ()), strict=False) if count}
    lines = remarks(metadata.get("unused", {}))
    if dropped:
        each = abbreviate([f"{name} ({count})" for name, count in dropped.items()], 3)
        lines.append(f"not used ({sum(dropped.values())}): masks with (almost) nobody in them, by sequence: {each}")
    return lines


def metadata_digest(metadata: Mapping) -> str:
    """SHA-256 of all metadata except `digest` itself."""
    content = {name: value for name, value in metadata.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
