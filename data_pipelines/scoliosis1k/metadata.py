"""What a prepared set remembers of the tree that it was made from, and what is said of it."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

from data_pipelines.files import remarks
from data_pipelines.schema import POSES, SILHOUETTES, abbreviate
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
    lines = remarks(metadata.get("unused", {}))
    found = [("not used ({count}): masks with (almost) nobody in them", metadata.get("dropped", ()))]
    poses = metadata.get(POSES)
    if poses:
        lines += remarks(poses["unused"])
        found.append(("not used ({count}): frames in which no joint is seen", poses["dropped"]))
        found.append(("warning ({count}): frames that show several people, of whom the first is taken", poses["crowded"]))
    for title, column in found:
        if counts := by_sequence(metadata, column):
            each = abbreviate(counted(counts), 3)
            lines.append(f"{title.format(count=sum(counts.values()))}, by sequence: {each}")
    if poses and (never := by_sequence(metadata, poses["never"])):
        each = abbreviate([f"{name} ({', '.join(joints)})" for name, joints in never.items()], 3)
        lines.append(
            f"warning: sequences with joints that are seen in no frame ({len(never)}): {each}; their maps are drawn as "
            "published, too small (without joints of the face where data.maps.body_only=True)"
        )
    for modality in (SILHOUETTES, POSES):
        if 0 < len(lacking := absent(metadata, modality)) < len(metadata["sequences"]):
            lines.append(f"warning: sequences without {modality} ({len(lacking)}): {abbreviate(lacking, 3)}")
    return lines


def by_sequence(metadata: Mapping, column: Iterable) -> dict[str, Any]:
    """What is neither 0 nor empty in a column of the metadata, which sets of old may lack, by sequence."""
    return {name: value for name, value in zip(metadata["sequences"], column, strict=False) if value}


def counted(counts: Mapping[str, int]) -> list[str]:
    """Names, each with its number in brackets."""
    return [f"{name} ({count})" for name, count in counts.items()]


def absent(metadata: Mapping, modality: str) -> list[str]:
    """Ids of the sequences of a prepared set that lack silhouettes, or poses."""
    columns = metadata if modality == SILHOUETTES else metadata.get(POSES, {"n_frames": [0] * len(metadata["sequences"])})
    return [name for name, count in zip(metadata["sequences"], columns["n_frames"], strict=True) if not count]


def metadata_digest(metadata: Mapping) -> str:
    """SHA-256 of all metadata except `digest` itself."""
    content = {name: value for name, value in metadata.items() if name != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
