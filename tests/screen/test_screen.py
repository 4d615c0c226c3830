"""The screening command: the same answer as evaluation, what it writes, what it refuses, and that it keeps nothing else."""

import csv
import errno
import itertools
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from data_pipelines import files
from data_pipelines.pipelines import EvalBatcher
from data_pipelines.poses.synthetic import walk_poses
from data_pipelines.schema import CLASSES
from data_pipelines.synthetic import draw_walker, render_walk, synthetic_walkers
from data_pipelines.video.backends import make_segmenter
from data_pipelines.video.background import Background
from data_pipelines.video.decoding import Video
from data_pipelines.video.fetch import models_there
from data_pipelines.video.synthetic_clip import walk_across, write_clip
from data_pipelines.video.walk import Walk, read_walk
from scoliojax.runs import directory as run_directory
from scoliojax.runs.run import open_run
from scoliojax.screen.__main__ import main
from scoliojax.screen.answer import Screener, window_bounds
from scoliojax.screen.limits import flags_of
from scoliojax.screen.pictures import contact_sheet
from scoliojax.screen.result import COLUMNS, Wanted, as_dict, as_row
from scoliojax.screen.terminal import lines_of
from scoliojax.training.evaluate import evaluate, make_eval_step
from tests.conftest import THOROUGH, iou, shared_folder
from tests.data_pipelines.test_locks import start_holder
from tests.report.test_report import Page

FILES = {"result.json", "report.html", "silhouettes.png", "silhouettes.gif"}


def screen(*arguments) -> int:
    """Run the command in this process; its exit status."""
    try:
        main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.mark.optimised
def test_a_prepared_pickle_gets_the_numbers_of_evaluation(run, tmp_path):
    walkers = synthetic_walkers(6, 40)
    network = open_run(run).network("newest")
    batch = EvalBatcher(walkers, np.arange(6), 6, 720)(0)
    found = evaluate(make_eval_step(network.graph), network.state.params, network.state.batch_stats, [batch])
    screener = Screener(network)
    for row in range(6):
        path = tmp_path / f"{row}.pkl"
        path.write_bytes(pickle.dumps(walkers.read(row)))
        answer = screener(read_walk(path, None))
        np.testing.assert_allclose(answer.whole.strip_logits, found.strip_logits[row], atol=2e-6)
        expected = network.calibration.probabilities(found.logits[row : row + 1], network.scale)
        np.testing.assert_allclose(answer.whole.probabilities, expected[0], atol=1e-4)
        assert answer.whole.referred == network.calibration.referred(expected)[0]
        assert answer.whole.called == CLASSES[np.argmax(found.logits[row])]


def test_windows_cover_the_walk_and_each_is_read_by_itself(run, monkeypatch):
    assert window_bounds(100, 30) == [(0, 30), (30, 60), (60, 100)]
    assert window_bounds(105, 30) == [(0, 30), (30, 60), (60, 90), (90, 105)]
    assert window_bounds(16, 30) == [(0, 16)]
    network = open_run(run).network("newest")
    silhouettes = synthetic_walkers(3, 75).read(2)
    whole = Screener(network)(Walk("walk", "masks", silhouettes, np.arange(75)))
    assert [(one.first, one.last) for one in whole.windows] == [(0, 29), (30, 59), (60, 74)]
    for one in whole.windows:
        piece = silhouettes[one.first : one.last + 1]
        alone = Screener(network)(Walk("walk", "masks", piece, np.arange(len(piece)))).whole
        np.testing.assert_allclose(one.strip_logits, alone.strip_logits, atol=2e-6)
    network.config.data.max_eval_frames = 45
    with monkeypatch.context() as patch:
        patch.setattr(nnx, "merge", None)  # one more screener, also of the network opened anew, traces nothing
        long = Screener(network)(Walk("walk", "masks", silhouettes, np.arange(75)))
        again = Screener(open_run(run).network("newest"))(Walk("walk", "masks", silhouettes, np.arange(75)))
    assert again.whole.strip_logits.tobytes() == whole.whole.strip_logits.tobytes()
    assert long.frames_used == 45
    assert {flag.name: flag.frames for flag in flags_of(long)}["long"] == 30


def test_a_video_is_answered_for_in_full(run, clip, tmp_path, capsys):
    folder = tmp_path / "out"
    assert screen(clip, "--checkpoint", run, "--output", folder, "--backend", "background", "--keep-frames") == 0
    assert {path.name for path in folder.iterdir()} == FILES | {"frames"}
    result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert result["schema"] == "scoliojax.screening/2"
    assert result["synthetic"]
    assert "not a diagnosis" in result["disclaimer"]
    answer = result["answer"]
    assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
    assert answer["referred"] == (answer["positive_or_neutral"] >= 0.5)
    assert answer["operating_point"]["validation_subjects"] == 50
    assert result["silhouettes"]["backend"] == "background"
    assert sum(window["frames"] for window in result["windows"]) == result["silhouettes"]["used"] == 64
    assert result["windows"][0]["start"] == 0.0
    assert result["windows"][-1]["end"] == pytest.approx(2.1, abs=0.01)
    agreeing = sum(window["class"] == answer["class"] for window in result["windows"])
    assert agreeing == result["windows_agreeing"]
    assert [strip["first_row"] for strip in result["strips"]] == list(range(0, 64, 4))
    mean = np.mean([[strip["contribution"][name] for name in CLASSES] for strip in result["strips"]], axis=0)
    logits = np.array([answer["logits"][name] for name in CLASSES])
    np.testing.assert_allclose(mean, logits - logits.mean(), atol=1e-5)
    assert len(list((folder / "frames").iterdir())) == 64
    kept = cv2.imread(str(folder / "frames" / "000003.png"))[..., ::-1]
    assert np.abs(kept.astype(int) - walk_across(0, 2, 64, size=(160, 256), scale=1.3)[0][3]).mean() < 8.0
    printed = capsys.readouterr().out
    assert printed.count("(synthetic)") == 2
    assert "not a diagnosis" in printed
    assert "this network was trained on synthetic walkers" in printed

    text = (folder / "report.html").read_text(encoding="utf-8")
    shown = Page(text)
    assert all(value.startswith("data:") for value in shown.asked)
    assert "script" not in shown.tags
    assert len(shown.pictures) == 12  # eight silhouettes, animation, sheet, windows, strips
    for words in (
        "not a diagnosis",
        "synthetic walkers, not people",
        "Which strips of the body",
        "the frames that were asked for",
    ):
        assert words in text
    for heading in re.findall(r"<h2>(?:Prob|Does|Which)[^<]*</h2>", text):
        assert "(synthetic)" in heading
    sheet = cv2.imread(str(folder / "silhouettes.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (5 * (64 + 14), 12 * 64)
    with Image.open(folder / "silhouettes.gif") as animation:
        assert animation.n_frames == 64
        assert animation.info["duration"] in (30, 40)

    assert screen(clip, "--checkpoint", run, "--output", folder, "--backend", "background") == 0  # replaces the first
    assert {path.name for path in folder.iterdir()} == FILES
    again = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    assert again == result | {"kept_frames": False}


def test_the_answer_on_a_clip_is_that_on_its_true_masks(run, tmp_path):
    network = open_run(run).network("newest")
    screener = Screener(network)
    overlaps, apart = [], []
    for seed in range(4):
        images, masks = walk_across(50 + seed, seed % 3, 40, size=(160, 256), scale=1.3)
        path, folder = write_clip(tmp_path / f"{seed}.mp4", images), tmp_path / f"masks-{seed}"
        folder.mkdir()
        for number, mask in enumerate(masks):
            cv2.imwrite(str(folder / f"{number:03d}.png"), mask)
        segmenter, video = Background(), Video(path)
        segmenter.study(video)
        overlaps += [max([iou(one.mask, masks[f.number]) for one in segmenter(f)], default=0.0) for f in video.frames()]
        seen, true = screener(read_walk(path, Background())), screener(read_walk(folder, None))
        apart.append(np.abs(seen.whole.probabilities - true.whole.probabilities).max())
    assert np.mean(overlaps) >= 0.85
    assert (
        np.mean(apart) < 0.1
    )  # of an untrained network, whose probabilities jump about; what a trained one does: tests.scripts.screening


def test_several_inputs_have_a_row_each_also_those_that_fail(run, clip, tmp_path, capsys, no_figures):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(clip, videos / "a.mp4")
    (videos / "b.mp4").write_text("not a video", encoding="utf-8")
    (videos / "notes.txt").write_text("kept apart", encoding="utf-8")
    masks = tmp_path / "masks"
    masks.mkdir()
    rng = np.random.default_rng(0)
    for number, mask in enumerate(render_walk(draw_walker(rng, 0), 20, rng)):
        cv2.imwrite(str(masks / f"{number:03d}.png"), mask)
    folder = tmp_path / "out"
    archive = tmp_path / "packed.zip"
    archive.write_bytes(b"PK\3\4")
    assert screen(videos, masks, archive, "--checkpoint", run, "--output", folder, "--backend", "background") == 2
    with (folder / "screening.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["input"].rsplit("/", 1)[-1] for row in rows] == ["a.mp4", "b.mp4", "masks", "packed.zip"]
    assert [bool(row["error"]) for row in rows] == [False, True, False, True]
    assert "packed.zip is a zip file" in rows[3]["error"]
    assert rows[0]["synthetic"] == rows[2]["synthetic"] == "yes"
    assert float(rows[2]["p_negative"]) == pytest.approx(
        json.loads((folder / "masks" / "result.json").read_text(encoding="utf-8"))["answer"]["probabilities"]["negative"],
        abs=1e-6,
    )
    assert {path.name for path in folder.iterdir()} == {"screening.csv", "a", "masks"}
    captured = capsys.readouterr()
    assert captured.err.count("error:") == 2
    assert captured.err.startswith("not used (1): files that are no part of a sequence: videos/notes.txt\n")
    assert "2 of 4 answered" in captured.out
    assert screen(videos, masks, "--checkpoint", run, "--output", folder, "--backend", "background") == 2  # replaces its own


def test_a_folder_that_may_not_be_read_stops_no_other(run, clip, tmp_path, capsys, monkeypatch, no_figures):
    (tmp_path / "closed").mkdir()

    def list_names(folder: Path, *suffixes: str):  # as for every user but root
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied", str(folder))
        return files.list_names(folder, *suffixes)

    monkeypatch.setattr("data_pipelines.video.walk.list_names", list_names)
    monkeypatch.setattr("data_pipelines.video.walk.list_folder", list_names)
    given = (tmp_path / "closed", clip, "--checkpoint", run, "--output", tmp_path / "out", "--backend", "background")
    assert screen(*given) == 2
    said = capsys.readouterr()
    assert "1 of 2 answered" in said.out
    assert "Permission denied" in said.err
    assert said.err.count("error:") == 1


def test_mistakes_are_one_line_and_lose_nothing(run, skeleton_run, clip, tmp_path, capsys, tiny_config, no_figures):
    capsys.readouterr()
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years", encoding="utf-8")
    two = np.concatenate([walk_across(0, 2, 30, size=(160, 256), scale=1.3)[0]] * 2, axis=1)
    two[:, 160:] = two[:, 160:, ::-1]
    people = write_clip(tmp_path / "two.mp4", two)
    pickled = tmp_path / "walk.pkl"
    pickled.write_bytes(pickle.dumps(synthetic_walkers(3, 20).read(0)))
    other = tmp_path / "skeletons"
    changed = tiny_config.to_dict()
    changed["model"]["name"] = "skeletongait"
    run_directory.claim(other, changed, None)
    torch = tmp_path / "ScoNet-20000.pt"
    torch.touch()
    out = tmp_path / "out"
    base = ["--output", out, "--backend", "background"]
    poses = tmp_path / "poses.pkl"
    poses.write_bytes(pickle.dumps(walk_poses(0, 30, 0)))
    for arguments, words in (
        ([clip, "--checkpoint", tmp_path, *base], f"--checkpoint={tmp_path} holds no run"),
        ([clip, "--checkpoint", torch, *base], "scoliojax.interop.opengait import"),
        ([clip, "--checkpoint", other, *base], "of another kind: its network 'skeletongait' is unknown here"),
        ([clip, "--checkpoint", run, "--step", "best", *base], "was not validated during training"),
        ([clip, "--checkpoint", run, "--step", "7", *base], "--step=7: no such checkpoint"),
        ([clip, "--checkpoint", run, "--step", "last", *base], "--step=last is neither newest nor best"),
        ([clip, "--checkpoint", run, "--window", "3", *base], "--window: '3' is no whole number from 15"),
        ([clip, clip, "--checkpoint", run, "--person", "1", *base], "--person belongs to one input, and there are 2"),
        ([clip, "--checkpoint", run, "--coverage", "90", *base], "--coverage=90 must lie between 0 and 1"),
        ([clip, "--checkpoint", run, "--prevalence", "0", *base], "--prevalence=0 must lie between 0 and 1"),
        (
            [clip, "--checkpoint", run, "--backend", "background", "--output", mine],
            "holds something else than a screening (thesis.txt)",
        ),
        (
            [clip, "--checkpoint", run, "--backend", "background", "--output", mine / "thesis.txt"],
            "is a file; give a new folder",
        ),
        ([pickled, "--checkpoint", run, *base], "are of videos, and no input is one"),
        ([poses, "--checkpoint", run, "--output", out], "run reads silhouettes, and there are poses alone"),
        ([pickled, "--checkpoint", skeleton_run, "--output", out], "reads skeletons, and there are silhouettes alone"),
        ([clip, "--checkpoint", skeleton_run, *base], "give a video with --backend pose, or poses"),
        ([clip, "--checkpoint", run, "--beside", tmp_path, *base], f"--beside={tmp_path} holds no run"),
        ([tmp_path / "none.mp4", "--checkpoint", run, *base], "none.mp4 does not exist"),
        ([people, "--checkpoint", run, *base], "candidates.png shows them"),
        ([clip, "--checkpoint", run, "--person", "2", *base], "--person 2 is not there; there are 1 to 1"),
    ):
        assert screen(*arguments) == 2, arguments
        error = capsys.readouterr().err.strip()
        assert error.startswith("error: "), error
        assert words in error
        assert "\n" not in error
    assert (mine / "thesis.txt").read_text(encoding="utf-8") == "years"
    assert {path.name for path in out.iterdir()} == {"candidates.png"}
    assert not list(tmp_path.glob(".*unfinished"))
    shown = cv2.imread(str(out / "candidates.png"), cv2.IMREAD_GRAYSCALE)
    assert shown.shape[0] == 2 * (64 + 14)
    assert screen(people, "--checkpoint", run, "--person", "1", *base) == 0
    assert {path.name for path in out.iterdir()} == FILES | {"candidates.png"}


def test_no_input_and_no_file_of_the_users_is_replaced(run, clip, tmp_path, capsys, no_figures, monkeypatch):
    masks = tmp_path / "data" / "p1"
    masks.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number, mask in enumerate(render_walk(draw_walker(rng, 0), 16, rng)):
        cv2.imwrite(str(masks / f"{number:03d}.png"), mask)
    shutil.copytree(masks, tmp_path / "data" / "p2")
    frames = tmp_path / "clip" / "frames"
    shutil.copytree(masks, frames)
    kept = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.chdir(masks)
    for arguments in (
        [masks, tmp_path / "data" / "p2", "--output", tmp_path / "data"],
        [frames, "--output", tmp_path / "clip"],
        [masks, "--output", masks],
    ):
        assert screen(*arguments, "--checkpoint", run) == 2
        assert re.search("would replace the input|holds something else than a screening", capsys.readouterr().err)
        assert kept == sorted(path for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.chdir(tmp_path)
    assert screen("data/p1/../p1", "--checkpoint", run) == 0
    assert {path.name for path in (tmp_path / "screening" / "p1").iterdir()} == FILES
    (tmp_path / "other").mkdir()
    shutil.copytree(masks, tmp_path / "other" / "p1")
    (tmp_path / "other" / "p1" / "000.png").unlink()
    capsys.readouterr()
    assert screen("other/p1", "--checkpoint", run) == 2
    assert "holds the answer for another input of this name; say where this one goes with --output" in capsys.readouterr().err
    assert screen(masks, tmp_path / "none.mp4", "--checkpoint", run, "--output", tmp_path / "both") == 2
    with (tmp_path / "both" / "screening.csv").open(encoding="utf-8") as file:
        assert ["does not exist" in row["error"] for row in csv.DictReader(file)] == [False, True]


def test_two_screenings_into_one_folder_do_not_mix(run, clip, tmp_path, capsys, no_figures):
    out = tmp_path / "out"
    holder = start_holder(tmp_path / ".out.screening.lock")
    arguments = [str(clip), f"--checkpoint={run}", f"--output={out}", "--backend=background"]
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    line = capsys.readouterr().err
    assert f"{out} is being written by another screening (process {holder.pid} on host" in line
    assert "give another --output" in line
    assert not out.exists()
    holder.kill()
    holder.communicate()
    main(arguments)
    assert (out / "result.json").exists()
    assert [path.name for path in tmp_path.glob(".*")] == []


def test_an_output_within_the_input_is_refused(run, tmp_path, capsys):
    masks = tmp_path / "masks"
    masks.mkdir()
    (masks / "000.png").touch()
    with pytest.raises(SystemExit):
        main([str(masks), f"--checkpoint={run}", f"--output={masks / 'out'}"])
    assert "lies in the input" in capsys.readouterr().err
    assert [path.name for path in masks.iterdir()] == ["000.png"]


def test_an_uncalibrated_or_unsteady_answer_says_so(run):
    (run / "calibration" / "step-000000.json").unlink()
    network = open_run(run).network("newest")
    answer = Screener(network)(Walk("walk", "masks", synthetic_walkers(3, 70).read(1), np.arange(70)))
    assert answer.whole.referred is None
    named = {flag.name for flag in flags_of(answer)}
    assert {"synthetic network", "not calibrated", "no operating point"} <= named
    result = as_dict(answer, None, {}, None, Wanted())
    assert result["answer"]["operating_point"] is None
    assert not result["answer"]["calibrated"]
    assert "there is no operating point to compare it with" in "\n".join(lines_of(result))
    assert as_row("walk", result)["referred"] == "no operating point"
    assert tuple(as_row("walk", None, "why")) == COLUMNS
    other = next(name for name in CLASSES if name != answer.whole.called)
    windows = [SimpleNamespace(called=other, first=0, last=29), SimpleNamespace(called=answer.whole.called, first=30, last=69)]
    assert {flag.name: flag.frames for flag in flags_of(replace(answer, windows=windows))}["unsteady"] == 30


def test_the_contact_sheet_shows_every_part_of_a_walk():
    silhouettes = np.zeros((200, 64, 64), np.uint8)
    silhouettes[:, 10:50, 20:40] = np.arange(200, dtype=np.uint8)[:, None, None]
    sheet = contact_sheet(silhouettes, np.arange(200))
    shown = [int(sheet[row * 78 + 30, column * 64 + 30]) for row in range(5) for column in range(12)]
    assert shown[0] == 0
    assert shown[-1] == 199
    assert shown == sorted(shown)


# A command of its own that may not reach the network, and whose every file is looked at
BLOCKED = """
import socket, sys
def refuse(event, arguments):
    if event == "socket.connect" and arguments[0].family != socket.AF_UNIX or event == "socket.getaddrinfo":
        raise RuntimeError(f"network: {event} {arguments[1:]}")
sys.addaudithook(refuse)
from scoliojax.screen import page
from scoliojax.screen.__main__ import main
main(sys.argv[1:])
"""


@pytest.mark.slow
def test_no_connection_is_made_and_no_frame_is_left(run, clip, tmp_path):
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    home.mkdir()
    scratch.mkdir()
    environment = os.environ | {
        "HOME": str(home),
        "TMPDIR": str(scratch),
        "SCOLIOJAX_CACHE": str(home),
    }
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    before = {path for path in tmp_path.rglob("*") if path.is_file()}
    command = [sys.executable, "-c", BLOCKED, str(clip), "--checkpoint", str(run), "--output", str(scratch / "out"),
               "--backend", "background"]  # fmt: skip
    done = subprocess.run(
        command, cwd=scratch, env=environment, capture_output=True, timeout=300, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    written = {path for path in tmp_path.rglob("*") if path.is_file()} - before
    assert {path.name for path in written if scratch in path.parents} == FILES
    others = {path.relative_to(home).parts[0] for path in written if scratch not in path.parents}
    assert others <= {"compiled", ".cache", ".config"}  # XLA's programs and matplotlib's list of fonts
    fonts = {path.name for path in written if {".cache", ".config"} & set(path.parts)}
    assert all(name.startswith("fontlist") for name in fonts), fonts
    for name in ("silhouettes.png", "silhouettes.gif"):
        with Image.open(scratch / "out" / name) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        assert (np.ptp(pixels.astype(int), axis=-1) == 0).all()  # grey: silhouettes and captions


# Real clips: pip download --no-deps sports2d==0.8.34 (Sports2D/Demo/demo.mp4), Debian's opencv-doc (vtest.avi)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "first", "last"), [("demo.mp4", 80, 125), ("vtest.avi", 500, 540)])
def test_real_clips_go_through_both_backends(name, first, last):
    if THOROUGH:
        last += last - first
    models = Path(os.environ["SCOLIOJAX_MODELS"])
    if not models_there(models):
        pytest.skip("the pose models are not there: python -m data_pipelines.video.fetch")
    path = shared_folder("SCOLIOJAX_CLIPS", "clips") / name
    if not path.exists():
        pytest.skip(f"{path} is not there")
    seen = {}
    for backend in ("pose", "background"):
        segmenter, video = make_segmenter(backend, models if backend == "pose" else None), Video(path)
        segmenter.study(video)
        frames = itertools.islice(video.frames(), first, last, 1 if backend == "pose" else 5)
        seen[backend] = {frame.number: segmenter(frame) for frame in frames}
    everybody = [one.mask for outlines in seen["pose"].values() for one in outlines]
    assert len(everybody) > (last - first) / 2
    overlaps = []
    for number, outlines in seen["background"].items():
        for mask in (one.mask for one in seen["pose"][number]):
            feet = np.flatnonzero(mask.any(axis=1)).max(initial=0)
            if name == "vtest.avi" or 300 <= feet < 478:  # the walker, not who jumps off the roof
                overlaps.append(max([iou(mask, other.mask) for other in outlines], default=0.0))
    assert np.mean(overlaps) >= (0.70 if name == "demo.mp4" else 0.45)
