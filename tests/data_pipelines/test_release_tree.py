"""What lies in a tree beside the sequences: nothing disappears without a word. A new kind of thing is a row of `LAYOUTS`."""

import gzip
import json
import lzma
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines.check import check
from data_pipelines.files import COPIES, DEEPER, LEFT, OTHERS, list_folder
from data_pipelines.names import natural
from data_pipelines.schema import SILHOUETTES, DataError
from data_pipelines.scoliosis1k.metadata import fingerprint, is_of
from data_pipelines.scoliosis1k.release_tree import look_through
from data_pipelines.scoliosis1k.safe_pickle import MOST_BYTES
from data_pipelines.scoliosis1k.walks import survey_of
from data_pipelines.silhouettes import normalise_sequence
from data_pipelines.sources import open_prepared, open_root, prepare, prepared_folder, read_metadata
from data_pipelines.synthetic import synthetic_walkers
from data_pipelines.video.walk import inputs_of, read_walk
from tests.conftest import assert_one_clear_error, run_here, write_tree

VIEW = "00003/Positive/000_180"


@pytest.fixture
def tree(tmp_path):
    """Three pickles, and a raw sequence of the masks 1.png to 20.png, each of another height."""
    root = write_tree(tmp_path / "tree", per_class=1)
    (root / VIEW).mkdir(parents=True)
    for number, mask in enumerate(masks(), 1):
        cv2.imwrite(str(root / VIEW / f"{number}.png"), mask)
    return root


def masks(count: int = 20) -> list[np.ndarray]:
    found = []
    for number in range(1, count + 1):
        mask = np.zeros((120, 100), np.uint8)
        mask[20:110, 40:60] = 255
        mask[40 + 2 * number :, 60:70] = 255  # no two frames are equal
        found.append(mask)
    return found


def leave(*names: str):
    """A file of each name, its content something else."""

    def do(root: Path) -> None:
        for name in names:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(b"Mac OS X")

    return do


def link(name: str, target: str):
    return lambda root: (root / name).symlink_to(root / target)


def copy(name: str, other: str):
    return lambda root: shutil.copy(root / name, root / other)


def copies(*stems: str):
    """The seventh mask again under each name."""
    return both(*(copy(f"{VIEW}/7.png", f"{VIEW}/{stem}.png") for stem in stems))


def rename(old: str, new: str):
    return lambda root: (root / old).rename(root / new)


def both(*steps):
    return lambda root: [step(root) for step in steps]


FOUR = ("00000", "00001", "00002", "00003")
NO_1 = ("00000", "00002", "00003")
PICKLE = "00000/Negative/000_180/000_180.pkl"
LAYOUTS = {  # what is done to the tree, which sequences are left, what is said of a problem, and how many things are not used
    "nothing": (lambda root: None, FOUR, "", {}),
    "of macOS": (leave(".DS_Store", "._00001", "00001/._Neutral", f"{VIEW}/._1.png", f"{VIEW}/.DS_Store"), FOUR, "", {LEFT: 5}),
    "of macOS, folder": (leave("__MACOSX/00001/Neutral/000_180/._000_180.pkl", "00001/__MACOSX/a"), FOUR, "", {LEFT: 2}),
    "of Synology": (leave("@eaDir/a", "00001/@eaDir/a", "00001/Neutral/@eaDir/a", f"{VIEW}/@eaDir/1.png"), FOUR, "", {LEFT: 4}),
    "of QNAP": (leave("@Recycle/00009/Positive/000_180/1.png", "#recycle/a"), FOUR, "", {LEFT: 2}),
    "of Windows": (leave("Thumbs.db", "DESKTOP.INI", f"{VIEW}/Thumbs.db", "$RECYCLE.BIN/a"), FOUR, "", {LEFT: 4}),
    "of Linux": (leave("lost+found/a", "00001/lost+found/a", f"{VIEW}/.nfs0001"), FOUR, "", {LEFT: 3}),
    "of Office": (leave("~$notes.xlsx"), FOUR, "", {LEFT: 1}),
    "a second download": (
        both(copy(PICKLE, PICKLE.replace(".pkl", " (1).pkl")), copies("7 (2)")), FOUR, "", {COPIES: 2},
    ),
    "copies": (copies("7 - Copy", "7 copy 2", "7 - Kopie (2)", "7 copy"), FOUR, "", {COPIES: 4}),
    "copies behind a point, or with another suffix": (
        both(copies("7.copy", "7.orig", "7.Kopie"), copy(f"{VIEW}/8.png", f"{VIEW}/8.PNG")), FOUR, "", {COPIES: 4},
    ),
    "two suffixes of one name": (
        copy(f"{VIEW}/8.png", f"{VIEW}/7.PNG"),
        FOUR[:3], "7.PNG is called as a copy of 7.png and holds something else", {},
    ),
    "a name that is contained, with other content": (
        copy(f"{VIEW}/8.png", f"{VIEW}/7.orig.png"), FOUR[:3], "7.orig.png is called as a copy of 7.png", {},
    ),
    "copies in other languages": (
        copies("7 - コピー", "7のコピー", "7 Kopie", "7 - copia", "Kopie von 7", "Copy of 7", "7 的副本", "7 2"),
        FOUR, "", {COPIES: 8},
    ),
    "copies of clouds": (
        copies("7 (Ann's conflicted copy 2026-01-01)", "7.sync-conflict-20260101-1-A", "7-DESKTOP-AB12CD", "7 (in Konflikt)"),
        FOUR, "", {COPIES: 4},
    ),
    "called a copy, of another content": (
        copy(f"{VIEW}/8.png", f"{VIEW}/7 (2).png"),
        FOUR[:3], "7 (2).png is called as a copy of 7.png and holds something else", {},
    ),
    "a second folder in another language": (
        lambda root: shutil.copytree(root / "00001", root / "00001 - コピー"), FOUR, "", {COPIES: 1},
    ),
    "a second folder of another child": (
        lambda root: shutil.copytree(root / "00002", root / "00001 (1)"), FOUR, "00001 (1): is called as a copy of 00001", {},
    ),
    "not downloaded, iCloud": (rename(f"{VIEW}/9.png", f"{VIEW}/.9.png.icloud"), FOUR[:3], "a part of 9.png", {}),
    "not downloaded, browsers": (
        both(rename(f"{VIEW}/9.png", f"{VIEW}/9.png.part"), rename(f"{VIEW}/8.png", f"{VIEW}/8.png.crdownload")),
        FOUR[:3], "8.png.crdownload is a part of 8.png, which was not downloaded to its end; download it again", {},
    ),
    "downloaded to its end": (leave(f"{VIEW}/9.png.part"), FOUR, "", {OTHERS: 1}),
    "of other shares": (
        leave(*(f"{name}/00009/a" for name in (
            "Network Trash Folder", "Temporary Items", "TheVolumeSettingsFolder", "~snapshot", "@Recently-Snapshot",
            "@sharebin", "@tmp", "@SynoResource", "RECYCLER", "Recycled", "FOUND.000", "$AVG", "__pycache__",
        ))), FOUR, "", {LEFT: 13},
    ),
    "masks whose names begin so": (
        both(*(rename(f"{VIEW}/{number}.png", f"{VIEW}/__{number}.png") for number in range(1, 21))), FOUR, "", {},
    ),
    "a name that is no UTF-8": (
        lambda root: os.rename(root / "00001", os.fsencode(root) + b"/gr\xf6\xdfe"),
        NO_1, "\\udcf6\\udcdfe: its name is not UTF-8", {},
    ),
    "a second folder": (lambda root: shutil.copytree(root / "00001", root / "00001 (1)"), FOUR, "", {COPIES: 1}),
    "a second folder alone": (rename("00001", "00001 (1)"), NO_1, "rename it to 00001", {}),
    "a second download alone": (rename(PICKLE, PICKLE.replace(".pkl", " (1).pkl")), FOUR, "", {}),
    ".PNG": (both(*(rename(f"{VIEW}/{number}.png", f"{VIEW}/{number}.PNG") for number in (3, 4, 5))), FOUR, "", {}),
    ".PKL": (rename(PICKLE, PICKLE.replace(".pkl", ".PKL")), FOUR, "", {}),
    ".jpg beside .png": (leave(*(f"{VIEW}/{number}.jpg" for number in range(21, 53))), FOUR, "", {OTHERS: 32}),
    "papers": (leave("README.md", "Scoliosis1K_118.json", "00001/notes.txt", f"{VIEW}/1.txt"), FOUR, "", {OTHERS: 4}),
    "a folder within a view": (leave(f"{VIEW}/old/1.png"), FOUR, "", {DEEPER: 1}),
    "dead link, sequence": (link("00004", "nowhere"), FOUR, "is a link to", {OTHERS: 1}),
    "dead link, class": (link("00001/Positive", "nowhere"), NO_1, "bring it back or remove the link", {OTHERS: 1}),
    "dead link, pickle": (
        both(lambda root: (root / PICKLE).unlink(), link(PICKLE, "nowhere")), FOUR[1:], "which is not there", {},
    ),
    "dead link, mask": (link(f"{VIEW}/21.png", "nowhere"), FOUR[:3], "which is not there", {}),
    "a file as a sequence": (leave("00004"), FOUR, "00004: is a file where a folder is expected; remove it", {OTHERS: 1}),
    "a FIFO as a sequence": (lambda root: os.mkfifo(root / "00004"), FOUR, "00004: is a FIFO where a folder", {OTHERS: 1}),
    "the same child twice, folder": (link("00004", "00001"), FOUR, "holds the same files as 00001 (a link)", {}),
    "the same child twice, class": (
        both(lambda root: (root / "00004").mkdir(), link("00004/Neutral", "00001/Neutral")), FOUR, "one child would be two", {},
    ),
    "the same child twice, hard link": (
        both(lambda root: (root / "00004/Negative/000_180").mkdir(parents=True),
             lambda root: os.link(root / PICKLE, root / "00004/Negative/000_180/000_180.pkl")), FOUR, "same files as 00000", {},
    ),
    "one name in two codes": (
        both(lambda root: shutil.copytree(root / "00001", root / "Zo\u00eb"),
             lambda root: shutil.copytree(root / "00002", root / "Zoe\u0308")),
        (*FOUR, "Zoe\u0308"), "Zo\u00eb: has the name of Zoe\u0308, with its accents in other codes", {},
    ),
    "a link in a circle": (link("00001/Neutral/000_180/up", "00001"), FOUR, "", {DEEPER: 1}),
    "an outer folder beside, class with blanks": (
        lambda root: (root / "release" / "00009" / " Positive " / "000_180").mkdir(parents=True), FOUR, "move them up into", {},
    ),
    "an outer folder beside": (
        lambda root: shutil.copytree(root / "00001", root / "Scoliosis1K-sil-pkl" / "00009"), FOUR, "move them up into", {},
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", LAYOUTS)
def test_what_is_not_used_is_counted_and_named(tree, tmp_path, kind, monkeypatch, capsys):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    do, kept, words, counts = LAYOUTS[kind]
    do(tree)
    lines: list[str] = []
    skipped = prepare(str(tree), tmp_path / "out", skip_bad=True, report=lines.append)
    data = open_prepared(tmp_path / "out")
    assert data.sequences == kept
    assert len(skipped) == bool(words)
    assert words in "".join(skipped)
    unused = read_metadata(prepared_folder(tmp_path / "out"))["unused"]
    assert {reason: found["count"] for reason, found in unused.items()} == counts
    assert all(len(found["names"]) == min(found["count"], 3) for found in unused.values())
    everything = look_through(tree, "--input", shown=None).unused.names
    assert {reason: len(names) for reason, names in everything.items()} == counts
    assert {reason: names[:3] for reason, names in everything.items()} == {one: found["names"] for one, found in unused.items()}
    assert len(lines) == len(counts)
    for reason, count in counts.items():
        line = next(line for line in lines if reason in line)
        assert line.startswith(f"not used ({count}): ")
        assert unused[reason]["names"][0] in line
    if "00003" in kept:
        np.testing.assert_array_equal(data.read(kept.index("00003")), normalise_sequence(masks()))
        walk = read_walk(tree / VIEW, None)
        np.testing.assert_array_equal(walk.silhouettes, data.read(kept.index("00003")))
        missed = sum(
            counts.get(reason, 0) for reason in (OTHERS, COPIES, DEEPER) if VIEW in "".join(everything.get(reason, []))
        )
        flagged = {flag.name: flag for flag in walk.flags}.get("files left out")
        assert (flagged is not None) == bool(missed)
    if words:
        with pytest.raises(DataError, match="--skip-bad"):
            open_root(str(tree), print)
    else:
        assert open_root(str(tree), print).digest() == data.digest()
        assert capsys.readouterr().out.count("not used (") == len(counts)


def outer(root: Path) -> Path:
    (root.parent / "release").mkdir()
    root.rename(root.parent / "release" / "Scoliosis1K-sil-pkl")
    return root.parent / "release"


def swapped(root: Path) -> Path:
    for view in list(root.glob("*/*/*")):
        (root.parent / "other" / view.parts[-2] / view.parts[-3]).mkdir(parents=True)
        view.rename(root.parent / "other" / view.parts[-2] / view.parts[-3] / view.name)
    return root.parent / "other"


@pytest.mark.parametrize(
    ("root", "words"),
    [
        (outer, "has no sequence, but .*release/Scoliosis1K-sil-pkl has .*; give that folder"),
        (lambda root: root / "00001", "is the folder of one sequence; give the folder above it, .*tree$"),
        (lambda root: root / "00001" / "Neutral", "has no sequence"),
        (
            swapped,
            r"the class above the sequence \(Negative, Neutral, Positive\): the two folders changed places; expected",
        ),
    ],
)
def test_a_root_too_high_or_too_low_says_which_folder_to_give(tree, tmp_path, root, words):
    folder = root(tree)
    with pytest.raises(DataError, match=words):
        survey_of(folder, "--input", SILHOUETTES, "")
    with pytest.raises(DataError, match=words):
        open_root(str(folder), print)
    assert run_here("data_pipelines.prepare", "--input", folder, "--check").returncode == 1
    result = run_here("data_pipelines.prepare", "--input", folder, "--output", tmp_path / "out")
    assert_one_clear_error(result, "--input=")


def test_numbers_in_names_are_in_their_order_and_padded_ones_as_they_were(tmp_path):
    names = [f"frame-{number}.png" for number in (1, 2, 10, 11, 100)]
    assert sorted({*names}, key=natural) == names
    for padded in (
        [f"{number:04d}.png" for number in range(0, 2000, 7)],
        [f"000_180-{number:03d}.png" for number in range(300)],
        [f"cam{camera}_{number:05d}.PNG" for camera in range(3) for number in range(20)],
    ):
        assert sorted({*padded}, key=natural) == sorted(padded) == padded
    assert sorted(["2.png", "02.png", "a.png", "1b.png", "1.png"], key=natural) == [
        "1.png",
        "1b.png",
        "02.png",
        "2.png",
        "a.png",
    ]


def npz(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, np.stack(masks()))


NO_WALKS = {  # name, content, and what is said of it
    "numpy": ("walk.npy", lambda path: np.save(path, np.stack(masks())), "walk.npy is a numpy array"),
    "numpy archive": ("walk.npz", npz, "walk.npz is a zip"),
    "xz": ("walk.pkl.xz", lambda path: path.write_bytes(lzma.compress(b"a")), "walk.pkl.xz is an xz file; unpack it"),
    "second download": ("walk.pkl (1)", lambda path: path.write_bytes(pickle.dumps(1)), "rename it to walk.pkl$"),
    "picture": ("1.png", lambda path: cv2.imwrite(str(path), masks()[0]), "is a single picture; give the folder"),
    "archive": ("masks.zip", lambda path: path.write_bytes(b"PK\3\4"), "masks.zip is a zip"),
    "half": (
        "a.mp4.crdownload",
        lambda path: path.write_bytes(b"1"),
        "is a part of a.mp4, which was not",
    ),
    "pickles": (
        "in",
        lambda path: leave("a.pkl", "b.pkl")(path),
        r"in holds pickles .a.pkl, b.pkl.; give the file",
    ),
    "too high": (
        "in",
        lambda path: leave("one/1.png")(path),
        "in holds folders of mask PNGs .*in/one.; give",
    ),
}


@pytest.mark.parametrize("kind", NO_WALKS)
def test_what_is_no_walk_is_named_with_the_remedy(tmp_path, kind):
    name, write, words = NO_WALKS[kind]
    write(tmp_path / name)
    with pytest.raises(DataError, match=words):
        inputs_of(tmp_path / name)
    if (tmp_path / name).is_file():  # as one of several inputs, which are not asked first
        with pytest.raises(DataError, match=words):
            read_walk(tmp_path / name, pytest.fail)


ORDERS = {
    "fractions of a second": [f"{number * 0.04:.10g}.png" for number in range(40)],
    "seconds, at first whole": ["0.png", "0.5.png", "1.png", "1.25.png", "1.3.png", "10.png"],
    "counted behind a point": [f"walk.1.{number}.png" for number in range(1, 131)],
    "cameras": [f"cam{camera}.{number}.png" for camera in (1, 2, 10) for number in range(1, 31)],
    "versions": [f"walk.v{number}.png" for number in range(1, 31)],
    "dates": ["2026.1.2.png", "2026.1.10.png", "2026.1.11.png", "2026.2.1.png"],
    "a series of one name": ["mask.png", *(f"mask ({number}).png" for number in range(1, 16))],
}


@pytest.mark.parametrize("kind", ORDERS)
def test_frames_are_in_the_order_that_their_names_mean(tmp_path, kind):
    names = ORDERS[kind]
    for number, name in enumerate(reversed(names)):
        (tmp_path / name).write_bytes(bytes([number]))
    found = list_folder(tmp_path, ".png")
    assert found.used == names
    assert not found.problems


@pytest.mark.parametrize("black", [False, True])
def test_frames_that_are_one_file_do_not_make_two_children_one(tmp_path, black):
    """Tools that save room link files of the same bytes; only most files of a sequence are a sequence."""
    root = tmp_path / "tree"
    for child in ("00001", "00002", "00003"):
        view = root / child / "Positive" / "000_180"
        view.mkdir(parents=True)
        for number in range(10):
            shared = (number < 4) if black else (child != "00001" and number > 0)
            first = root / ("00001" if black else "00002") / "Positive" / "000_180" / f"{number}.png"
            if shared and first.exists():
                os.link(first, view / f"{number}.png")
            else:
                (view / f"{number}.png").write_bytes(f"{child}{number}".encode())
    found = look_through(root, "--input")
    assert [one.sequence for one in found.sequences] == (["00001", "00002", "00003"] if black else ["00001", "00002"])
    assert ["00003: holds the same files as 00002 (a link)" in line for line in found.problems] == [True] * (not black)


def of_links(root: Path, store: Path, **children: str) -> None:
    """A tree whose files are links into a store, as of DVC and git-annex: by child, the class and the number of its pickle."""
    shutil.rmtree(root, ignore_errors=True)
    for child, (kind, number) in children.items():
        view = root / child / kind / "000_180"
        view.mkdir(parents=True)
        (view / "a.pkl").symlink_to(store / str(number))


def test_a_tree_of_links_with_other_labels_or_ids_is_another_one(tmp_path, monkeypatch):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    walkers, store, root = synthetic_walkers(3, 20), tmp_path / "store", tmp_path / "tree"
    store.mkdir()
    for row in range(3):
        (store / str(row)).write_bytes(pickle.dumps(walkers.read(row)))
    of_links(root, store, a=("Positive", 0), b=("Neutral", 1), c=("Negative", 2))
    first = open_root(str(root), print)
    prepare(str(root), tmp_path / "out")
    assert first.labels.tolist() == [2, 1, 0]
    of_links(root, store, a=("Negative", 0), b=("Neutral", 1), c=("Positive", 2))
    assert open_root(str(root), print).labels.tolist() == [0, 1, 2]
    of_links(root, store, a=("Positive", 0), b=("Neutral", 1), d=("Negative", 2))
    assert open_root(str(root), print).sequences == ("a", "b", "d")
    # The source of sets that were prepared before ids were part of it
    metadata = read_metadata(prepared_folder(tmp_path / "out"))
    sequences = look_through(root, "--input").sequences
    old = {**metadata, "source": fingerprint(sequences, str([]), identities=False)}
    assert not is_of(old, sequences, str([]))
    of_links(root, store, a=("Positive", 0), b=("Neutral", 1), c=("Negative", 2))
    assert is_of(old, look_through(root, "--input").sequences, str([]))
    assert is_of(metadata, look_through(root, "--input").sequences, str([]))


def test_a_tree_in_the_cache_is_refused_when_problems_were_added(tree, tmp_path, monkeypatch):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    open_root(str(tree), print)
    (tree / "00009" / "Critical" / "000_180").mkdir(parents=True)
    (tree / "00010").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"00010: is a link to.*00009/Critical: unknown class.*--skip-bad"):
        open_root(str(tree), print)


@pytest.mark.parametrize(
    ("given", "lost", "words"),
    [
        ("scoliosis1k", "", "is a part of a prepared set; give the folder above it, .*/out$"),
        ("scoliosis1k/1.0.0", "", "is a part of a prepared set; give the folder above it, .*/out$"),
        (".", "dataset_info.json", "holds a prepared set that is not whole .*lacks dataset_info.json.*; copy it again"),
        ("scoliosis1k", "dataset_info.json", "holds a prepared set that is not whole"),
    ],
)
def test_a_part_of_a_prepared_set_is_no_tree(tree, tmp_path, given, lost, words):
    prepare(str(tree), tmp_path / "out")
    if lost:
        (prepared_folder(tmp_path / "out") / lost).unlink()
    given_to = lambda folder: survey_of(folder, "--input", SILHOUETTES, ""), lambda folder: open_root(str(folder), print), check
    for call in given_to:
        with pytest.raises(DataError, match=words):
            call(tmp_path / "out" / given)


@pytest.mark.parametrize("option", ["subjects", "partition", "link", "input"])
def test_a_check_does_not_write_over_what_it_reads(tree, tmp_path, option):
    subjects, partition = tmp_path / "s.csv", tmp_path / "p.json"
    subjects.write_text("sequence,subject\n0,a\n1,b\n2,c\n3,d\n", encoding="utf-8")
    partition.write_text('{"TRAIN_SET": [0, 1], "TEST_SET": [2, 3]}', encoding="utf-8")
    (tmp_path / "link.json").symlink_to(partition)
    target = {"subjects": subjects, "partition": partition, "link": tmp_path / "link.json", "input": tree / PICKLE}[option]
    before = target.read_bytes()
    given = ["--subjects", subjects, "--partition", partition, "--json", target]
    assert_one_clear_error(run_here("data_pipelines.prepare", "--input", tree, "--check", *given), "--json=", "give ")
    assert target.read_bytes() == before


def test_names_that_would_move_the_cursor_are_shown_as_codes(tree):
    (tree / "a\nb\x1b[31m.txt").write_bytes(b"")
    (tree / "0\x1b[2J").write_bytes(b"")
    result = run_here("data_pipelines.prepare", "--input", tree, "--check")
    assert "\x1b" not in result.stdout
    assert r"a\nb\x1b[31m.txt" in result.stdout
    assert r"0\x1b[2J: is a file where a folder is expected" in result.stdout


def test_nor_do_the_names_of_sequences_move_it(tree, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    (tree / "00003").rename(tree / "3\x1b[31m\n")
    (tree / "00001").rename(tree / "1\x1b[31m\n")
    cv2.imwrite(str(tree / "3\x1b[31m\n" / "Positive" / "000_180" / "21.png"), np.zeros((120, 100), np.uint8))
    (tree / "1\x1b[31m\n" / "Neutral" / "000_180" / "000_180.pkl").write_bytes(
        pickle.dumps(synthetic_walkers(3, 20).read(0)[:9])
    )
    for given in (["--check"], ["--output", tmp_path / "out"]):
        result = run_here("data_pipelines.prepare", "--input", tree, *given)
        assert "\x1b" not in result.stdout + result.stderr
        assert r"3\x1b[31m\n (1)" in result.stdout
    open_root(str(tree), print)
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert r"3\x1b[31m\n (1)" in said


def test_a_check_says_of_what_prepare_can_leave_out_alone(tree, tmp_path):
    (tree / PICKLE).write_bytes(b"broken")
    given = ["--partition", tmp_path / "nowhere.json", "--subjects", tmp_path / "nowhere.csv"]
    result = run_here("data_pipelines.prepare", "--input", tree, "--check", *given)
    assert "3 problems; with --skip-bad prepare goes on without what 1 of them are about" in result.stdout
    assert "problem: --partition=" in result.stdout
    (tree / PICKLE).write_bytes(pickle.dumps(synthetic_walkers(3, 20).read(0)))
    result = run_here("data_pipelines.prepare", "--input", tree, "--check", *given)
    assert result.stdout.splitlines()[-1] == "2 problems"
    for child in FOUR[1:]:
        shutil.rmtree(tree / child)
    (tree / PICKLE).write_bytes(b"broken")  # the only one: nothing would be left
    result = run_here("data_pipelines.prepare", "--input", tree, "--check", *given)
    assert result.stdout.splitlines()[-1] == "3 problems"
    assert "problem: --partition=" in result.stdout


def test_frames_without_anybody_are_counted_by_sequence(tree, tmp_path):
    for number in (3, 9, 10):
        cv2.imwrite(str(tree / VIEW / f"{number}.png"), np.zeros((120, 100), np.uint8))
    result = run_here("data_pipelines.prepare", "--input", tree, "--output", tmp_path / "out")
    assert result.returncode == 0
    assert "not used (3): masks with (almost) nobody in them, by sequence: 00003 (3)" in result.stdout
    assert read_metadata(prepared_folder(tmp_path / "out"))["dropped"] == [0, 0, 0, 3]
    for given in (tree, tmp_path / "out"):
        assert check(given).dropped == {"00003": 3}
    np.testing.assert_array_equal(read_walk(tree / VIEW, None).frames, [*range(2), *range(3, 8), *range(10, 20)])


def test_a_set_prepared_before_there_were_these_counts_still_opens(tree, tmp_path):
    from data_pipelines.scoliosis1k.builder import metadata_digest

    prepare(str(tree), tmp_path / "out")
    path = prepared_folder(tmp_path / "out") / "metadata.json"
    columns = json.loads(path.read_text(encoding="utf-8"))
    old = {name: value for name, value in columns.items() if name not in ("dropped", "unused")}
    path.write_text(json.dumps(old | {"digest": metadata_digest(old)}), encoding="utf-8")
    assert open_prepared(tmp_path / "out").sequences == FOUR
    result = run_here("data_pipelines.prepare", "--input", tmp_path / "out", "--check")
    assert result.returncode == 0, result.stdout


# --check


def everything(root: Path) -> None:
    """A tree with one thing of every kind that `--check` tells of."""
    walkers = synthetic_walkers(12, 20)
    for row in range(12):
        view = root / f"{row:05d}" / ("Negative", "Neutral", "Positive")[row % 3] / "000_180"
        view.mkdir(parents=True)
        (view / "000_180.pkl").write_bytes(pickle.dumps(walkers.read(row)))
    copy = root / "00020" / "Negative" / "000_180"
    copy.mkdir(parents=True)
    (copy / "a.pkl").write_bytes(pickle.dumps(walkers.read(0)[1:]))  # nearly that of 00000
    (root / "00005" / "Positive" / "000_180" / "000_180.pkl").write_bytes(pickle.dumps(walkers.read(5)[:9]))
    (root / "00006" / "Negative" / "000_180" / "000_180.pkl").write_bytes(b"broken")
    (root / "00007" / "Neutral" / "000_180" / "000_180.pkl").write_bytes(pickle.dumps(255 - walkers.read(7)))
    (root / "00008" / "Positive").rename(root / "00008" / "Critical")
    (root / ".DS_Store").write_bytes(b"")
    (root / "notes.txt").write_bytes(b"")


def test_a_check_lists_everything_at_once_and_writes_nothing_but_what_was_asked_for(tmp_path):
    root = tmp_path / "tree"
    everything(root)
    (tmp_path / "subjects.csv").write_text(
        "sequence,subject\n" + "".join(f"{row:05d},p{row // 2}\n" for row in range(12)) + "00020,p0\n", encoding="utf-8"
    )
    parts = {"TRAIN_SET": [f"{row:05d}" for row in (0, 1, 2, 3, 20)], "TEST_SET": ["00004", "00005", "00009", "00010", "00011"]}
    (tmp_path / "part.json").write_text(json.dumps(parts), encoding="utf-8")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    given = ["--subjects", tmp_path / "subjects.csv", "--partition", tmp_path / "part.json"]
    result = run_here("data_pipelines.prepare", "--input", root, "--check", *given, "--json", tmp_path / "check.json")
    assert result.returncode == 1
    found = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.name != "check.json"}
    assert {path: after[path] for path in before if path.is_file()} == {path: before[path] for path in before if path.is_file()}
    assert after.keys() == before.keys()
    assert not found["usable"]
    for sequence, words in (("00006", "not a readable pickle"), ("00007", "inverted"), ("00008", "unknown class 'Critical'")):
        assert [words in line for line in found["problems"] if sequence in line] == [True]
        assert words in result.stdout
    assert len(found["problems"]) == 3
    assert found["unused"] == {LEFT: {"count": 1, "names": [".DS_Store"]}, OTHERS: {"count": 1, "names": ["notes.txt"]}}
    assert len(found["frames"]) == 10
    assert found["short"] == {"00005": 9}
    assert found["distribution"]["minimum"] == 9
    assert found["distribution"]["median"] == 20
    assert [(pair["sequence"], pair["twin"]) for pair in found["near_duplicates"]] == [("00020", "00000")]
    assert {name: counts["sequences"] for name, counts in found["classes"].items()} == {
        "positive": 3,
        "neutral": 3,
        "negative": 4,
    }
    assert found["classes"]["negative"]["people"] == 3  # 00000 and 00020 are one person
    assert {name: counts["people"] for name, counts in found["parts"]["train"].items()} == {
        "positive": 1,
        "neutral": 1,
        "negative": 2,
    }
    assert sum(counts["frames"] for counts in found["parts"]["test"].values()) == 89
    for words in ("00020 and 00000", "00005 (9)", "3 problems", ".DS_Store", "train: sequences"):
        assert words in result.stdout


def test_a_check_of_a_prepared_set_says_what_is_in_it_and_what_was_left_out(tmp_path):
    root = tmp_path / "tree"
    everything(root)
    prepare(str(root), tmp_path / "out", skip_bad=True)
    result = run_here(
        "data_pipelines.prepare", "--input", tmp_path / "out", "--check", "--partition", "1:1:1", "--json", tmp_path / "a"
    )
    found = json.loads((tmp_path / "a").read_text(encoding="utf-8"))
    assert found["kind"] == "prepared set"
    assert len(found["frames"]) == 10
    assert found["problems"] == []
    assert len(found["left_out"]) == 3
    assert result.returncode == 0
    assert result.stdout.count("left out when it was prepared: ") == 3
    assert result.stdout.splitlines()[-1] == "0 problems"
    assert sum(counts["sequences"] for part in found["parts"].values() for counts in part.values()) == 10
    record = next(prepared_folder(tmp_path / "out").glob("*.array_record*"))
    record.write_bytes(record.read_bytes()[:1000])
    result = run_here("data_pipelines.prepare", "--input", tmp_path / "out", "--check")
    assert "cannot be read" in result.stdout
    assert result.stdout.splitlines()[-1] == "1 problem"
    assert result.returncode == 1


def test_a_check_of_good_data_ends_with_nothing_to_say(tmp_path):
    root = write_tree(tmp_path / "tree", per_class=2, frames=16)
    result = run_here("data_pipelines.prepare", "--input", root, "--check")
    assert result.returncode == 0
    assert result.stdout.splitlines()[-1] == "0 problems"
    assert look_through(root, "--input").unused.as_json() == {}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--check", "--output", "out"], "--output"),
        (["--check", "--skip-bad"], "--skip-bad is of --output"),
        (["--output", "out", "--partition", "1:1:2"], "--partition and --json are of --check"),
        (["--output", "out", "--partition", ""], "--partition and --json are of --check"),
        (["--check", "--json", "no/such/folder/a.json"], "--json="),
        ([], "--output"),
    ],
)
def test_options_of_a_check_and_of_a_preparation_are_not_mixed(tmp_path, arguments, words):
    result = run_here("data_pipelines.prepare", "--input", write_tree(tmp_path / "tree", per_class=1), *arguments)
    assert result.returncode == 2
    assert_one_clear_error(result, words)


def test_a_check_names_a_subjects_file_and_a_partition_that_do_not_fit(tmp_path):
    root = write_tree(tmp_path / "tree", per_class=1, frames=16)
    (tmp_path / "s.csv").write_text("sequence,subject\n00000,a\n", encoding="utf-8")
    given = ["--subjects", tmp_path / "s.csv", "--partition", tmp_path / "none.json"]
    result = run_here("data_pipelines.prepare", "--input", root, "--check", *given)
    assert result.returncode == 1
    assert "has no line for 00001, 00002" in result.stdout
    assert "none.json" in result.stdout
    assert "2 problems" in result.stdout
    assert run_here("data_pipelines.prepare", "--input", tmp_path / "nowhere", "--check").returncode == 2
    long = "x" * 300
    for given in (["--input", long, "--check"], ["--input", root, "--output", long]):
        assert_one_clear_error(run_here("data_pipelines.prepare", *given), "File name too long); give a shorter name")


@pytest.mark.parametrize(
    ("make", "words"), [(os.mkfifo, "is a FIFO"), (lambda path: path.symlink_to("nowhere"), "is a link to what")]
)
def test_what_has_the_name_of_a_video_or_pickle_and_is_none_is_not_waited_for(tmp_path, make, words):
    make(tmp_path / "walk.mp4")
    make(tmp_path / "walk.pkl")
    for path in (tmp_path, tmp_path / "walk.mp4", tmp_path / "walk.pkl"):
        with pytest.raises(DataError, match=words):
            inputs_of(path)
    with pytest.raises(DataError, match=words):
        read_walk(tmp_path / "walk.mp4", pytest.fail)


@pytest.mark.parametrize(("real", "words"), [(True, ["same files as 00000"]), (False, [])])
def test_files_that_a_network_file_system_numbers_0_are_not_taken_for_one(tree, monkeypatch, real, words):
    shutil.copytree(tree / "00000", tree / "00004", copy_function=os.link)
    found = os.stat

    def stat_of_a_share(path, **given):
        state = found(path, **given)
        return os.stat_result([state[0], 0, *state[2:10]], {"st_mtime_ns": state.st_mtime_ns})

    if not real:
        monkeypatch.setattr("data_pipelines.scoliosis1k.release_tree.os.stat", stat_of_a_share)
    problems = look_through(tree, "--input").problems
    monkeypatch.undo()
    assert len(problems) == len(words)
    assert all(word in problem for word, problem in zip(words, problems, strict=True))


def test_the_size_of_silhouettes_is_known_before_they_are_unpacked(tmp_path):
    """Else many would be read ahead at once."""
    frames = pickle.dumps(np.zeros((500, 64, 64), np.uint8))
    view = tmp_path / "00000" / "Positive" / "000_180"
    view.mkdir(parents=True)
    packed = gzip.compress(frames)
    for name, content, size in (
        ("a.pkl", frames, len(frames)),
        ("a.pkl.gz", packed, len(frames)),
        ("a.pkl", packed, len(frames)),  # by its content, whatever its name
        ("a.pkl", packed[:-4] + b"\xff" * 4, MOST_BYTES),  # it lies; no more is ever unpacked
        ("a.pkl", packed[:-4] + bytes(4), len(packed)),
        ("a.pkl", b"\x1f\x8b", 2),
        ("a.pkl", b"", 0),
    ):
        (view / name).write_bytes(content)
        assert look_through(tmp_path, "--input").sequences[0].nbytes == size
        (view / name).unlink()
    os.mkfifo(view / "a.pkl")
    assert look_through(tmp_path, "--input").sequences[0].nbytes == 0


def test_names_that_differ_in_upper_case_alone_are_remarked(tree, tmp_path):
    for name, other in (("00000", "A1"), ("00001", "a1")):
        (tree / name).rename(tree / other)
    words = "A1 and a1 differ in upper case alone and count as two children"
    for given in (["--check"], ["--output", tmp_path / "out"]):
        result = run_here("data_pipelines.prepare", "--input", tree, *given)
        assert result.returncode == 0
        assert result.stdout.count(words) == 1


# What a check says about a partition, subjects and frames, without the set being unusable: a new remark is a row.
REMARKS = {  # options, words of the line, and the exit status
    "class without training": ({"TRAIN_SET": ["00000", "00001"], "TEST_SET": ["00002"]}, "the train part has no positive", 0),
    "in neither part": ({"TRAIN_SET": ["00000", "00001"], "TEST_SET": ["00002"]}, "1 of 4 sequences are in neither part", 0),
    "a key that nothing reads": (
        {"TRAIN_SET": ["00000", "00001"], "TEST_SET": ["00002"], "note": 1},
        "nothing reads 'note'",
        0,
    ),
    "one class": ({"TRAIN_SET": ["00000"], "TEST_SET": ["00002"]}, "problem: --partition=", 1),
    "subjects of others": ("sequence,subject\n0,a\n1,b\n2,c\n3,d\n77,e\n", "1 of its lines are of sequences that are not", 0),
    "subjects in another encoding": ("sequence,subject\n0,é\n1,b\n2,c\n3,d\n".encode("cp1252"), "is read as Windows-1252", 0),
}


@pytest.mark.parametrize("kind", REMARKS)
def test_a_check_says_what_training_would_say(tree, tmp_path, kind):
    content, words, status = REMARKS[kind]
    path = tmp_path / "given"
    path.write_bytes(
        content if isinstance(content, bytes) else (content if isinstance(content, str) else json.dumps(content)).encode()
    )
    option = "--partition" if isinstance(content, dict) else "--subjects"
    result = run_here("data_pipelines.prepare", "--input", tree, "--check", option, path, "--json", tmp_path / "check.json")
    found = json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))
    assert result.returncode == status
    assert [words in f"problem: {line}" for line in found["remarks" if status == 0 else "problems"]].count(True) == 1
    assert result.stdout.count(words) == 1


def test_a_check_names_gaps_in_the_numbers_of_masks_and_nobody_else_does(tree, tmp_path):
    for number in (4, 5, 9):
        (tree / VIEW / f"{number}.png").unlink()
    result = run_here("data_pipelines.prepare", "--input", tree, "--check", "--json", tmp_path / "check.json")
    assert result.returncode == 0
    assert "sequences with gaps in the numbers of their masks (1): 00003 (3)" in result.stdout
    assert json.loads((tmp_path / "check.json").read_text(encoding="utf-8"))["gaps"] == {"00003": 3}
    lines: list[str] = []
    prepare(str(tree), tmp_path / "out", report=lines.append)
    assert lines == []


@pytest.mark.parametrize("bad", [False, True])
def test_a_check_whose_reader_has_gone_ends_quietly(tree, bad):
    if bad:
        (tree / PICKLE).write_bytes(b"")
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        command = [sys.executable, "-m", "data_pipelines.prepare", "--input", str(tree), "--check"]
        buffered = os.environ | {"PYTHONUNBUFFERED": ""}  # as it is for a pipe, unless someone says otherwise
        result = subprocess.run(
            command, stdout=gone, stderr=subprocess.PIPE, encoding="utf-8", check=False, timeout=60, env=buffered
        )
    assert result.returncode == 141
    assert "Exception" not in result.stderr
    assert "Broken" not in result.stderr
