"""Poses beside silhouettes, from two released trees to the sets that networks read. A new fault is a row of `FAULTS`."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from data_pipelines.poses.asymmetry import asymmetry_vector
from data_pipelines.poses.drawing import drawn
from data_pipelines.poses.maps import skeleton_maps
from data_pipelines.poses.synthetic import walk_poses
from data_pipelines.prepared import open_each, open_prepared, prepared_folder, read_metadata
from data_pipelines.schema import MARKER, POSES, SILHOUETTES, SKELETONS, DataError
from data_pipelines.scoliosis1k.metadata import metadata_digest
from data_pipelines.sources import open_root, prepare
from data_pipelines.synthetic import synthetic_walkers, walk, write_tree
from tests import conftest
from tests.conftest import assert_one_clear_error, run_here

FRAMES = 6
IDS = tuple(f"{row:05d}" for row in range(4))
VIEWS = dict(zip(IDS, ("Negative/000_180", "Neutral/000_180", "Positive/000_180", "Negative/000_180"), strict=True))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A tree of silhouettes `S` and one of poses `P`, of the same four walks."""
    root, walkers = tmp_path_factory.mktemp("walks"), synthetic_walkers(len(IDS), FRAMES)
    write_tree(walkers, root / "S")
    write_tree(walkers, root / "P", lambda row: walk_poses(row, FRAMES, 0))
    return root


@pytest.fixture
def trees(written, tmp_path, monkeypatch) -> Path:
    for name in "SP":
        shutil.copytree(written / name, tmp_path / name)
    monkeypatch.setenv("SCOLIOJAX_CACHE", str(tmp_path / "cache"))
    return tmp_path


def command(root: Path, *options: object):
    return run_here("data_pipelines.prepare", "--input", root / "S", "--poses", root / "P", *options)


def pose(change: Callable[[np.ndarray], object], sequence: str = "00001") -> Callable[[Path], None]:
    """Writes other poses of a sequence: what `change` makes of them."""

    def do(root: Path) -> None:
        path = root / "P" / sequence / VIEWS[sequence] / "000_180.pkl"
        path.write_bytes(pickle.dumps(change(pickle.loads(path.read_bytes()))))

    return do


def as_frames(root: Path, sequence: str = "00001", people: int = 1) -> Path:
    """Turns the pickle of a sequence's poses into one JSON a frame; returns their folder."""
    folder = root / "P" / sequence / VIEWS[sequence]
    poses = pickle.loads((folder / "000_180.pkl").read_bytes())
    (folder / "000_180.pkl").unlink()
    for number, frame in enumerate(poses):
        person = {"pose_keypoints_2d": frame.ravel().tolist()}
        (folder / f"{number:03d}.json").write_text(json.dumps({"people": [person] * people}), encoding="utf-8")
    return folder


def as_masks(root: Path, sequence: str) -> Path:
    """Turns the pickle of a sequence's silhouettes into raw masks, of which the first is empty; returns their folder."""
    folder = root / "S" / sequence / VIEWS[sequence]
    silhouettes = pickle.loads((folder / "000_180.pkl").read_bytes())
    (folder / "000_180.pkl").unlink()
    for number, frame in enumerate(silhouettes):
        mask = np.pad(np.where(frame > 127, 255, 0), 8) * (number > 0)
        cv2.imwrite(str(folder / f"{number:03d}.png"), mask.astype(np.uint8))
    return folder


def everywhere(do: Callable[[Path, str], object]) -> Callable[[Path], None]:
    return lambda root: [do(root, sequence) for sequence in IDS] and None


def test_both_trees_give_what_each_gives_alone_of_the_same_walks(trees):
    prepare(str(trees / "S"), trees / "alone")
    prepare(None, trees / "poses", poses=str(trees / "P"))
    result = command(trees, "--output", trees / "both")
    assert result.returncode == 0, result.stderr
    assert f"4 sequences, {4 * FRAMES} frames (1 positive, 1 neutral, 2 negative) in {trees / 'both'}" in result.stdout
    assert f"4 sequences of poses, {4 * FRAMES} frames" in result.stdout
    both = {modality: open_root(str(trees / "both"), print, modality) for modality in (SILHOUETTES, SKELETONS)}
    one = {SILHOUETTES: open_prepared(trees / "alone"), SKELETONS: open_prepared(trees / "poses", modality=SKELETONS)}
    for modality, data in both.items():
        assert data.sequences == IDS == one[modality].sequences
        assert data.digest() == one[modality].digest()
        assert data.labels.tolist() == [0, 1, 2, 0]
        assert data.n_frames.tolist() == [FRAMES] * 4
        for row in range(4):
            np.testing.assert_array_equal(data.read(row), one[modality].read(row))
    assert (both[SILHOUETTES].modality, both[SKELETONS].modality) == (SILHOUETTES, POSES)
    assert both[SILHOUETTES].digest() != both[SKELETONS].digest()
    assert both[SILHOUETTES].asymmetry is None
    vectors = both[SKELETONS].asymmetry
    assert (vectors.shape, vectors.dtype) == ((4, 8, 3), np.float32)
    for row in range(4):
        poses = walk_poses(row, FRAMES, 0)
        np.testing.assert_array_equal(both[SILHOUETTES].read(row), walk(row, FRAMES, 0)[1])
        np.testing.assert_array_equal(both[SKELETONS].read(row), poses)
        np.testing.assert_array_equal(vectors[row], asymmetry_vector(poses))


def test_a_set_without_poses_is_what_it_was_before_there_were_any(tmp_path):
    prepare(str(conftest.write_tree(tmp_path / "tree")), tmp_path / "out")
    assert open_prepared(tmp_path / "out").digest() == "30a457f56e2dd534"
    metadata = read_metadata(prepared_folder(tmp_path / "out"))
    assert [*metadata] == ["sequences", "subjects", "labels", "views", "n_frames", "checksums", "dropped", "skipped", "unused",
                           "source", "digest"]  # fmt: skip
    features = json.loads((prepared_folder(tmp_path / "out") / "features.json").read_text(encoding="utf-8"))
    assert [*features["featuresDict"]["features"]] == ["label", "sequence", "silhouettes"]


def test_each_modality_keeps_its_own_usable_frames(trees):
    folder = as_masks(trees, "00002")
    pose(lambda poses: np.where(np.arange(FRAMES)[:, None, None] == 4, 0, poses), "00002")(trees)
    as_frames(trees, "00003", people=2)
    pose(lambda poses: np.where(np.arange(17)[:, None] == 9, 0, poses), "00001")(trees)
    result = command(trees, "--output", trees / "out")
    assert result.returncode == 0, result.stderr
    for line in (
        "not used (1): masks with (almost) nobody in them, by sequence: 00002 (1)",
        "not used (1): frames in which no joint is seen, by sequence: 00002 (1)",
        f"warning ({FRAMES}): frames that show several people, of whom the first is taken, by sequence: 00003 ({FRAMES})",
        "warning: sequences with joints that are seen in no frame (1): 00001 (left wrist)",
    ):
        assert line in result.stdout
    silhouettes, poses = open_each(trees / "out")
    assert silhouettes.n_frames.tolist() == poses.n_frames.tolist() == [6, 6, 5, 6]
    np.testing.assert_array_equal(poses.read(2), np.delete(walk_poses(2, FRAMES, 0), 4, axis=0))
    np.testing.assert_array_equal(poses.read(3), walk_poses(3, FRAMES, 0))
    (folder / "003.png").unlink()  # as if it had been lost
    (trees / "P" / "00003" / VIEWS["00003"] / "003.json").unlink()
    result = command(trees, "--check", "--json", trees / "check.json")
    found = json.loads((trees / "check.json").read_text(encoding="utf-8"))
    assert result.returncode == 1
    assert len(found["problems"]) == found["skippable"] == 2  # of different length
    assert found["poses"]["never"] == {"00001": ["left wrist"]}
    prepared = run_here("data_pipelines.prepare", "--input", trees / "out", "--check", "--json", trees / "set.json")
    found = json.loads((trees / "set.json").read_text(encoding="utf-8"))
    assert prepared.returncode == 0, prepared.stdout
    assert (found["dropped"], found["poses"]["dropped"]) == ({"00002": 1}, {"00002": 1})
    assert (found["poses"]["crowded"], found["poses"]["never"]) == ({"00003": FRAMES}, {"00001": ["left wrist"]})
    for line in (
        f"poses of {trees / 'out'}: 4 sequences that can be used, 23 frames",
        "sequences with frames in which no joint is seen (1): 00002 (1)",
        f"sequences with frames that show several people (1): 00003 ({FRAMES})",
    ):
        assert line in prepared.stdout


def test_what_one_tree_alone_has_is_kept_and_named(trees):
    shutil.rmtree(trees / "S" / "00000")
    shutil.rmtree(trees / "P" / "00003")
    as_frames(trees, "00002")
    (trees / "P" / "00002" / VIEWS["00002"] / "001.json").rename(trees / "P" / "00002" / VIEWS["00002"] / "009.json")
    result = command(trees, "--output", trees / "out")
    assert "warning: sequences without silhouettes (1): 00000" in result.stdout
    assert "warning: sequences without poses (1): 00003" in result.stdout
    lines: list[str] = []
    silhouettes, poses = (open_root(str(trees / "out"), lines.append, modality) for modality in (SILHOUETTES, SKELETONS))
    assert (silhouettes.sequences, poses.sequences) == (IDS[1:], IDS[:3])
    assert (silhouettes.labels.tolist(), poses.labels.tolist()) == ([1, 2, 0], [0, 1, 2])
    np.testing.assert_array_equal(silhouettes.read(2), walk(3, FRAMES, 0)[1])
    np.testing.assert_array_equal(poses.read(0), walk_poses(0, FRAMES, 0))
    np.testing.assert_array_equal(poses.asymmetry[0], asymmetry_vector(walk_poses(0, FRAMES, 0)))
    assert [line.partition(": ")[2] for line in lines] == [
        "sequences without silhouettes, left out (1): 00000", "sequences without poses, left out (1): 00003",
    ]  # fmt: skip
    prepare(str(trees / "S"), trees / "alone")
    assert silhouettes.digest() == open_prepared(trees / "alone").digest()
    for given in (("--poses", trees / "P", "--input", trees / "S"), ("--input", trees / "out")):
        run_here("data_pipelines.prepare", *given, "--check", "--json", trees / "check.json")
        found = json.loads((trees / "check.json").read_text(encoding="utf-8"))
        assert found["frames"] == dict.fromkeys(IDS, FRAMES)
        assert (found["poses"]["without_poses"], found["poses"]["without_silhouettes"]) == (["00003"], ["00000"])
        assert found["poses"]["gaps"] == ({"00002": 4} if "--poses" in given else {})  # 000, 002 to 005, 009
        assert found["classes"]["negative"] == {"sequences": 2, "people": 2, "frames": 2 * FRAMES}


def other_class(root: Path) -> None:
    (root / "P/00001/Neutral").rename(root / "P/00001/Positive")


def renamed(root: Path) -> None:
    for folder in list((root / "P").iterdir()):
        folder.rename(folder.with_name(f"walk{folder.name}"))


def broken_json(root: Path) -> None:
    (as_frames(root) / "002.json").write_bytes(b'{"people": [')


def broken_silhouettes(root: Path) -> None:
    next((root / "S/00001").glob("*/*/*.pkl")).write_bytes(b"hello")


def swapped(root: Path) -> None:
    (root / "S").rename(root / "other")
    (root / "P").rename(root / "S")
    (root / "other").rename(root / "P")


NO_1 = tuple(name for name in IDS if name != "00001")
FAULTS = {  # what is done to the trees, what is said of it, and with --skip-bad the silhouettes and poses that are left
    "COCO-18": (pose(lambda poses: poses[:, [*range(17), 0]]), "has 18 joints (COCO-18", IDS, NO_1),
    "BODY-25": (pose(lambda poses: poses[:, [*range(17), *range(8)]]), "has 25 joints (BODY-25", IDS, NO_1),
    "another number of joints": (pose(lambda poses: poses[:, :13]), "has 13 joints; give [frames, 17, 3]", IDS, NO_1),
    "NaN": (pose(lambda poses: poses * np.nan), "frame 0, nose: nan, nan, nan are not all numbers; write 0, 0, 0", IDS, NO_1),
    "nobody": (pose(lambda poses: poses * 0), f"no joint in any frame ({FRAMES} frames), so nobody is seen; give", IDS, NO_1),
    "no hip in any frame": (
        pose(lambda poses: np.where(np.arange(17)[:, None] == 11, 0, poses), "00001"),
        "00001/Neutral/000_180: no left hip in any frame, so no body can be centred; find", IDS, NO_1,
    ),
    "one height in a frame": (
        pose(lambda poses: np.where(np.arange(FRAMES)[:, None, None] == 3, [5, 9, 1], np.maximum(poses, 0.5))),
        "00001/Neutral/000_180: frame 3: all its joints have one height, so no body can be scaled; remove", IDS, NO_1,
    ),
    "one JSON broken": (broken_json, "002.json: is no JSON (", IDS, NO_1),
    "silhouettes broken": (broken_silhouettes, "not a readable pickle", NO_1, IDS),
    "other lengths": (
        pose(lambda poses: poses[:4]), f"00001: {FRAMES} silhouettes and 4 poses, so nobody knows which", NO_1, NO_1,
    ),
    "other classes": (other_class, "P/00001/Positive; nobody but you can know which is right: correct the other", NO_1, NO_1),
    "no sequence in common": (
        renamed, "--input (00000, 00001, 00002 and 1 more) and --poses (walk00000, ", None, None,
    ),
    "the wrong way round": (swapped, "holds poses, no silhouettes; give it as --poses", None, None),
    "frames of poses as silhouettes": (
        lambda root: (everywhere(as_frames)(root), swapped(root)),
        "--input='", "S' holds poses, no silhouettes; give it as --poses", None, None,
    ),
    "silhouettes as poses": (
        lambda root: (shutil.rmtree(root / "P"), shutil.copytree(root / "S", root / "P")),
        "--poses='", "P' holds silhouettes, no poses; give it as --input", None, None,
    ),
    "masks as poses": (
        lambda root: (everywhere(as_masks)(root), shutil.rmtree(root / "P"), shutil.copytree(root / "S", root / "P")),
        "P' holds silhouettes, no poses; give it as --input", None, None,
    ),
    "no poses": (
        lambda root: [path.unlink() for path in (root / "P").rglob("*.pkl")],
        "/<view>/*.pkl or *.json", "0 .pkl and 0 .json files; expected one .pkl, or .json frames only", None, None,
    ),
    "a prepared set": (
        lambda root: (shutil.rmtree(root / "P"), prepare(str(root / "S"), root / "P")),
        "--poses='", "is prepared already; give it as data.root, or as --input of", None, None,
    ),
    "nowhere": (lambda root: shutil.rmtree(root / "P"), "P' does not exist; give the folder that holds", None, None),
}  # fmt: skip


@pytest.mark.parametrize("kind", FAULTS)
def test_what_two_trees_cannot_be_is_one_line(trees, kind):
    do, *words, silhouettes, poses = FAULTS[kind]
    do(trees)
    result = command(trees, "--output", trees / "out")
    assert_one_clear_error(result, *words)
    assert result.returncode == 2
    assert not (trees / "out" / "scoliosis1k").exists()
    result = command(trees, "--output", trees / "out", "--skip-bad")
    if silhouettes is None:
        assert_one_clear_error(result, *words)
        assert result.returncode == 2
        assert not (trees / "out" / "scoliosis1k").exists()
    else:
        assert result.returncode == 0, result.stderr
        assert words[0] in next(line for line in result.stdout.splitlines() if line.startswith("skipped: "))
        assert tuple(data.sequences for data in open_each(trees / "out")) == (silhouettes, poses)
    if (trees / "P").exists() and kind != "a prepared set":
        checked = command(trees, "--check")
        assert checked.returncode == 1
        assert any(all(word in line for word in words) for line in checked.stdout.splitlines() if "  problem: " in line)


PLACES = {  # options, and what is said of them
    "neither": (("--output", "out"), ("give --input TREE (silhouettes), --poses TREE, or both",)),
    "the same folder": (("--input", "S", "--poses", "S", "--output", "out"), ("--input='", "--poses='", "contain one another")),
    "poses within": (("--input", "S", "--poses", "S/00000", "--output", "out"), ("contain one another; pick another folder",)),
    "output within poses": (("--poses", "P", "--output", "P/out"), ("--output='", "--poses='", "contain one another")),
    "poses within output": (("--input", "S", "--poses", "P", "--output", "."), ("--output='", "contain one another")),
    "JSON within poses": (("--poses", "P", "--check", "--json", "P/a.json"), ("--json='", "lies within --poses='")),
    "a set as poses": (("--poses", "set", "--check"), ("--poses='", "is a prepared set; give it as --input")),
    "a set and poses": (("--input", "set", "--poses", "P", "--check"), ("is a prepared set; leave out --poses",)),
    "people of one tree": (
        ("--input", "S", "--poses", "more", "--subjects", "people.csv", "--output", "out"), ("has no line for 00009",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PLACES)
def test_places_that_cannot_be(trees, monkeypatch, kind):
    options, words = PLACES[kind]
    if "set" in options:
        prepare(str(trees / "S"), trees / "set")
    if "more" in options:
        shutil.copytree(trees / "P", trees / "more")
        shutil.copytree(trees / "P/00000", trees / "more/00009")
        people = "".join(f"{name},{name}\n" for name in IDS)
        (trees / "people.csv").write_text(f"sequence,subject\n{people}", encoding="utf-8")
    monkeypatch.chdir(trees)
    before = {*trees.rglob("*")}
    result = run_here("data_pipelines.prepare", *options)
    assert_one_clear_error(result, *words)
    assert result.returncode == 2
    assert {*trees.rglob("*")} == before


def test_a_tree_is_prepared_once_for_each_modality_and_no_other_is_taken(trees):
    lines: list[str] = []
    for _ in range(2):
        poses = open_root(str(trees / "P"), lines.append, SKELETONS)
        silhouettes = open_root(str(trees / "S"), lines.append)
    assert [line.partition(" is a ")[0] for line in lines] == [f"data.root={trees / name}" for name in "PS"]
    assert poses.sequences == silhouettes.sequences == IDS
    assert poses.asymmetry.shape == (4, 8, 3)
    roots = {SILHOUETTES: [trees / "P", poses.name], SKELETONS: [trees / "S", silhouettes.name]}
    said = {SILHOUETTES: "poses, no silhouettes; train", SKELETONS: "silhouettes, no poses; give"}
    remedies = {SILHOUETTES: "--config configs/sconet_mt_ske.py or configs/drf.py", SKELETONS: "--config configs/sconet_mt.py"}
    for modality, places in roots.items():
        for place in (*places, f"file://{places[1]}"):
            with pytest.raises(DataError) as error:
                open_root(str(place), lines.append, modality)
            assert f"data.root={str(place)!r} holds {said[modality]}" in str(error.value)
            assert str(error.value).endswith(remedies[modality])
    before = (trees / "P").stat()
    as_frames(trees)
    other = open_root(str(trees / "P"), lines.append, SKELETONS)  # prepared anew: the same poses in another form
    assert (other.name != poses.name, other.digest()) == (True, poses.digest())
    assert before.st_ino == (trees / "P").stat().st_ino


def test_a_set_with_poses_is_read_from_a_url(trees):
    prepare(str(trees / "S"), trees / "both", poses=str(trees / "P"))
    lines: list[str] = []
    copies = [open_root(f"file://{trees / 'both'}", lines.append, modality) for modality in (SILHOUETTES, SKELETONS)]
    assert len([line for line in lines if "is copied once" in line]) == 1
    for copy, data in zip(copies, open_each(trees / "both"), strict=True):
        assert (copy.digest(), copy.modality, copy.name) == (data.digest(), data.modality, f"file://{trees / 'both'}")
        np.testing.assert_array_equal(copy.read(3), data.read(3))


def test_subjects_and_what_is_known_of_them_belong_to_both(trees):
    shutil.rmtree(trees / "S" / "00000")
    people = "".join(f"{name},child {name},{age}\n" for age, name in enumerate(IDS, 10))
    (trees / "people.csv").write_text(f"sequence,subject,age\n{people}", encoding="utf-8")
    prepare(str(trees / "S"), trees / "out", subjects=str(trees / "people.csv"), poses=str(trees / "P"))
    for data in open_each(trees / "out"):
        assert data.subjects == tuple(f"child {name}" for name in data.sequences)
        assert data.traits == {"age": tuple(str(10 + IDS.index(name)) for name in data.sequences)}


def test_the_same_trees_again_are_the_same_set_and_others_are_not(trees):
    prepare(str(trees / "S"), trees / "out", poses=str(trees / "P"))
    assert prepare(str(trees / "S"), trees / "out", poses=str(trees / "P")) == []
    for tree, poses in (("S", None), (None, "P")):
        with pytest.raises(DataError, match="is already prepared, from other files"):
            prepare(tree and str(trees / tree), trees / "out", poses=poses and str(trees / poses))


def test_damaged_poses_are_named_and_silhouettes_beside_them_are_not(trees):
    prepare(str(trees / "S"), trees / "out", poses=str(trees / "P"))
    path = prepared_folder(trees / "out") / "metadata.json"
    columns = json.loads(path.read_text(encoding="utf-8"))

    def sign(**changes: object) -> None:
        changed = columns | {"poses": columns["poses"] | changes}
        path.write_text(json.dumps(changed | {"digest": metadata_digest(changed)}), encoding="utf-8")

    path.write_text(json.dumps(columns | {"poses": columns["poses"] | {"asymmetry": [[0.0] * 24] * 4}}), encoding="utf-8")
    with pytest.raises(DataError, match=r"metadata\.json does not match its digest.*delete it and"):
        open_prepared(trees / "out", modality=SKELETONS)
    sign(asymmetry=columns["poses"]["asymmetry"][:3])
    with pytest.raises(DataError, match=r"4 records for .*'poses\.asymmetry': 3"):
        open_prepared(trees / "out", modality=SKELETONS)
    sign(asymmetry=[[0.0] * 23] * 4)
    with pytest.raises(DataError, match=r"is damaged \(ValueError: cannot reshape"):
        open_prepared(trees / "out", modality=SKELETONS)
    sign(checksums=[*columns["poses"]["checksums"][:3], 0])
    with pytest.raises(DataError, match=r"record 3, sequence 00003, does not match its checksum"):
        open_prepared(trees / "out", modality=SKELETONS).read(3)
    np.testing.assert_array_equal(open_prepared(trees / "out").read(3), walk(3, FRAMES, 0)[1])


def test_poses_become_maps_and_keep_all_else(trees):
    prepare(None, trees / "out", poses=str(trees / "P"))
    poses = open_prepared(trees / "out", modality=SKELETONS)
    maps = drawn(poses, align="shared", body_only=True, sigma=6.0)
    assert (maps.modality, maps.frame_shape) == (SKELETONS, (2, 64, 44))
    assert (maps.sequences, maps.n_frames is poses.n_frames, maps.asymmetry is poses.asymmetry) == (IDS, True, True)
    np.testing.assert_array_equal(maps.read(2), skeleton_maps(poses.read(2), "shared", True, 6.0))
    kinds = {drawn(poses).digest(), maps.digest(), drawn(poses, sigma=6.0).digest(), drawn(poses, body_only=True).digest()}
    assert len(kinds) == 4
    assert drawn(poses, sigma=8).digest() == drawn(poses).digest()
    with pytest.raises(ValueError, match="skeletons, of which no map can be drawn"):
        drawn(maps)
    flat = walk_poses(0, FRAMES, 0)
    flat[2, 5:, 1] = 40  # the head alone is higher
    pose(lambda found: flat, "00000")(trees)
    prepare(None, trees / "flat", poses=str(trees / "P"))
    data = open_prepared(trees / "flat", modality=SKELETONS)
    assert drawn(data).read(0).shape == (FRAMES, 2, 64, 64)
    with pytest.raises(DataError, match=r"flat: sequence 00000: frame 2: all its joints have one height"):
        drawn(data, body_only=True).read(0)


@pytest.mark.parametrize("given", [("--input", "S"), ("--poses", "P"), ("--input", "S", "--poses", "P")], ids=" ".join)
def test_a_set_of_synthetic_walkers_says_so(given, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_here("data_pipelines.synthetic", "--output", "S", "--poses", "P", "--subjects", 3, "--frames", 4).returncode == 0
    result = run_here("data_pipelines.prepare", *given, "--output", "out")
    assert result.returncode == 0, result.stderr
    assert MARKER not in result.stdout
    assert all(data.synthetic for data in open_each(Path("out")))
    for tree in ("S", "P"):
        Path(tree, MARKER).unlink()
    assert run_here("data_pipelines.prepare", *given, "--output", "other").returncode == 0
    assert not any(data.synthetic for data in open_each(Path("other")))


def test_a_check_names_the_walks_of_a_partition_that_no_network_of_skeletons_can_read(trees):
    shutil.rmtree(trees / "P" / "00002")
    parts = trees / "parts.json"
    parts.write_text(json.dumps({"TRAIN_SET": IDS[:3], "TEST_SET": IDS[3:]}), encoding="utf-8")
    found = command(trees, "--check", "--partition", parts).stdout
    assert "--partition: 1 of its sequences have no poses, for a network of skeletons: 00002" in found
    assert "near-duplicates are looked for among silhouettes, not among poses" in found
    alone = run_here("data_pipelines.prepare", "--input", trees / "S", "--check", "--partition", parts).stdout
    assert "poses" not in alone
