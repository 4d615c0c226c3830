"""The page: what it answers, that nothing stays on the disk, and that nobody else is asked or let in."""

import html
import importlib.util
import json
import os
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.figure import Figure

from data_pipelines.video.background import Background
from data_pipelines.video.synthetic_clip import walk_across, write_clip
from scoliojax.app import __main__ as command
from scoliojax.app import page as app
from scoliojax.app.desk import Desk, Outcome, on_a_page, page_part
from scoliojax.app.progress import Stage, follow
from scoliojax.runs.directory import claim
from scoliojax.runs.run import Run, TrainedNetwork

SESSION = "a-session"


@pytest.fixture
def network(tiny_config, tmp_path):
    claim(tmp_path / "run", tiny_config.to_dict(), "walkers")
    run = Run(tmp_path / "run", tiny_config)
    return TrainedNetwork(run, run.initial_state())


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """One walker, and then two at once."""
    folder = tmp_path_factory.mktemp("clips")
    size = (200, 480)
    one, masks = walk_across(1, 0, frames=40, size=size, start=0.15)
    two = np.where(masks[:, :, ::-1, None] > 0, one[:, :, ::-1], one)  # the same walker, mirrored, on top
    return write_clip(folder / "one.mp4", one).read_bytes(), write_clip(folder / "two.mp4", two).read_bytes()


@pytest.fixture
def no_figures(monkeypatch):
    """For tests that look at other things; no figure has the name of the video."""
    for name in ("draw_windows", "draw_strips"):
        monkeypatch.setattr(f"scoliojax.screen.page.{name}", lambda answer: Figure(figsize=(1, 1)))


@pytest.fixture
def folder(tmp_path):
    """Where the desk keeps its videos."""
    path = tmp_path / "desk"
    path.mkdir()
    return path


@pytest.fixture
def desk(network, folder):
    return Desk(network, [Background()], folder)


def give(desk, folder, content, name="walk.mp4", session=SESSION):
    """What gradio's upload does."""
    upload = folder / "uploads" / "checksum" / name
    upload.parent.mkdir(parents=True)
    upload.write_bytes(content)
    desk.take(session, upload)


def files(folder):
    """The files of a folder, from which the page may be removing some meanwhile: `rglob` would fail at one that is gone."""
    return [Path(place) / name for place, _, names in os.walk(folder) for name in names]


def test_answers_with_the_report_and_keeps_nothing(desk, folder, clip, tmp_path):
    give(desk, folder, b"an earlier one", "earlier.mp4")
    give(desk, folder, clip[0])
    assert [path.name for path in files(folder)] == ["walk.mp4"], "the later upload replaces the earlier one"
    outcome = desk(SESSION, "background", [])
    assert not files(folder)
    assert not outcome.kept
    assert f"<strong>{html.escape(outcome.spoken)}</strong>" in outcome.answer
    report = re.search(r'<iframe class="report" title="report" sandbox="allow-same-origin" srcdoc="([^"]*)"', outcome.answer)
    assert report, "one attribute: every quote of the report is escaped"
    assert "Gait screening of walk.mp4" in report[1]
    assert "&lt;script" not in report[1]
    assert str(tmp_path) not in outcome.answer
    assert "choose it again" in desk(SESSION, "background", []).answer

    give(desk, folder, clip[0])
    desk.forget(SESSION)
    desk.forget(SESSION)
    give(desk, folder, clip[0])
    desk.close()
    assert not files(folder)


@pytest.mark.slow
def test_the_video_stays_until_one_of_several_people_is_chosen(desk, folder, clip, no_figures):
    give(desk, folder, clip[1])
    for _ in range(2):
        outcome = desk(SESSION, "background", [])
        assert outcome.spoken == "2 people walk here. Choose the one to screen."
        assert outcome.kept
        assert outcome.answer == ""
        assert [int(number) for number in re.findall(r'type="checkbox" value="(\d)"', outcome.people)] == [1, 2]
        assert outcome.people.count('src="data:image/png;base64,') == 2
        assert [path.name for path in files(folder)] == ["walk.mp4"], "nothing of the first reading is left"
    outcome = desk(SESSION, "background", [2])
    assert "number 2 was taken" in outcome.answer
    assert not outcome.people
    assert not files(folder)

    give(desk, folder, clip[1])
    assert desk(SESSION, "background", []).kept
    desk.forget(SESSION)
    assert not files(folder)


def test_mistakes_are_one_message_and_keep_nothing(desk, folder, clip, tmp_path):
    for content, people, words in (
        (clip[1], [7], "person 7 is not there"),
        (b"no video", [], "walk.mp4"),
        (b"", [], "walk.mp4 is empty (0 bytes)"),
    ):
        give(desk, folder, content)
        outcome = desk(SESSION, "background", people)
        assert outcome.answer.count('class="banner"') == 1
        assert words in outcome.spoken
        assert str(tmp_path) not in outcome.answer
        assert "--" not in outcome.answer
        assert "iframe" not in outcome.answer
        assert not outcome.kept
        assert not files(folder)


@pytest.mark.parametrize("written", ["half", "0", "100", "-3 %", "nan", "inf", "1e999"])
def test_a_prevalence_that_is_none_is_told_and_the_video_stays(desk, folder, clip, monkeypatch, written):
    monkeypatch.setattr(Desk, "_answer", None)
    give(desk, folder, clip[0])
    outcome = desk(SESSION, "background", [], written)
    assert f"prevalence '{written}' is no percentage between 0 and 100" in outcome.spoken
    assert outcome.kept
    assert files(folder)


@pytest.mark.slow
def test_a_video_of_any_name_is_answered(desk, folder, clip, no_figures):
    for name in ("walk", "走路$1_{$.mp4", 250 * "x" + ".mp4", "a b&<i>.txt"):
        give(desk, folder, clip[0], name)
        outcome = desk(SESSION, "background", [], "3,5 %")
        assert html.escape(f"<h1>Gait screening of {html.escape(name)}</h1>") in outcome.answer
        assert "Where 3.5 % of the people" in outcome.answer or "No answer" in outcome.answer
        assert not files(folder)


@pytest.mark.slow
def test_an_answer_tells_its_stages_and_ends_when_it_is_cancelled(desk, folder, clip, no_figures):
    told = []
    give(desk, folder, clip[0])
    desk(SESSION, "background", [], report=lambda *stage: told.append(stage))
    assert list(dict.fromkeys(name for name, _, _ in told)) == [
        "looking at the scene", "finding the person", "reading the walk", "writing the report",
    ]  # fmt: skip
    assert max(stage for stage in told if stage[0] == "finding the person") == ("finding the person", 40, 40)

    for stop in dict.fromkeys(name for name, _, _ in told):
        give(desk, folder, clip[0])
        outcome = desk(SESSION, "background", [], report=lambda name, *_, stop=stop: name == stop and desk.forget(SESSION))
        if stop != "writing the report":  # the last thing that is told
            assert outcome.spoken == "Cancelled; the video is deleted."
        assert not outcome.kept
        assert not files(folder)


def test_one_walk_is_read_at_a_time_and_the_next_may_give_up_waiting(desk, folder, clip, monkeypatch):
    reading, go = threading.Event(), threading.Event()

    def answer(*_):
        reading.set()
        assert go.wait(10)
        return Outcome("answer", "spoken")

    monkeypatch.setattr(desk, "_answer", answer)
    give(desk, folder, b"first")
    with ThreadPoolExecutor(1) as worker:
        first = worker.submit(desk, SESSION, "background", [])
        assert reading.wait(10)
        give(desk, folder, b"second", session="another")
        stages = []
        second = desk("another", "background", [], report=lambda *stage: stages.append(stage) or desk.forget("another"))
        assert stages == [("waiting", 0, None)]
        assert second.spoken.startswith("Cancelled")
        give(desk, folder, b"later")
        go.set()
        assert first.result() == Outcome("answer", "spoken", kept=True), "of the later video"
    assert [path.read_bytes() for path in files(folder)] == [b"later"]
    desk.close()
    assert not files(folder)


def test_an_error_of_ours_leaves_no_video_either(desk, folder, clip, monkeypatch):
    give(desk, folder, clip[0])
    monkeypatch.setattr("scoliojax.app.desk.write_result", lambda *_: [][0])
    with pytest.raises(IndexError):
        desk(SESSION, "background", [])
    assert not files(folder)


def test_messages_name_what_the_page_has():
    said = on_a_page("walk.mp4: the camera moved (--backend background allows 2); use --backend pose, or try another --backend")
    assert said == (
        'walk.mp4: the camera moved ("The camera stands still" allows 2); use "The camera may move", or try the other choice '
        "about the camera"
    )


def test_work_is_followed_to_its_result():
    go = threading.Event()

    def work(report):
        report("first", 1, 2)
        assert go.wait(10)
        return "done"

    steps = follow(work, seconds=0.01)
    seen = next(steps)
    while seen != Stage("first", 1, 2):
        seen = next(steps)
    go.set()
    assert list(steps)[-1] == "done"
    with pytest.raises(ZeroDivisionError):
        list(follow(lambda report: 1 / 0))


@pytest.mark.parametrize(
    ("stage", "words"),
    [
        (Stage("finding the person", 12, 90), ["Finding the person: 12 of about 90 frames ...", 'max="90" value="12"']),
        (Stage("finding the person", 95, 90), ["95 of about 90 frames", 'max="95" value="95"']),
        (Stage("finding the person", 12, None), ["Finding the person: 12 frames ..."]),
        (Stage("reading the walk", 0, None), ["Reading the walk ..."]),
    ],
)
def test_progress_is_shown_in_frames(stage, words):
    shown = page_part(part="progress", **stage._asdict())
    assert all(word in shown for word in words)
    assert ("max=" in shown) == (stage.total is not None)


def installed(found):
    return SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: found))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--megabytes", "0"], "--megabytes: '0' is no whole number from 1"),
        (["--port", "99999"], "--port: '99999' is no whole number from 0 to 65535"),
        (["--models", "nowhere"], "nowhere/pose_detection.tflite is missing"),
        (["--port", "0"], "--checkpoint="),
    ],
)
def test_mistakes_on_the_command_line(arguments, words, capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(app, "importlib", installed(True))
    with pytest.raises(SystemExit) as ended:
        command.main(["--checkpoint", str(tmp_path), *arguments])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert words in said
    assert said.count("\n") == 1


def test_without_gradio_says_how_to_get_it(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(app, "importlib", installed(None))
    with pytest.raises(SystemExit):
        command.main(["--checkpoint", str(tmp_path)])
    assert capsys.readouterr().err.endswith('pip install "scoliojax[app]"\n')


class Page:
    """What a browser does, without one."""

    def __init__(self, port):
        self.port, self.root = port, f"http://127.0.0.1:{port}"
        self.config = json.loads(self.get("/config"))

    def get(self, path, **headers):
        with urllib.request.urlopen(urllib.request.Request(self.root + path, headers=headers)) as answer:
            assert b"default-src 'self'" in answer.headers["content-security-policy"].encode()
            return answer.read()

    def post(self, path, content, kind="application/json"):
        with urllib.request.urlopen(urllib.request.Request(self.root + path, content, {"Content-Type": kind})) as answer:
            return json.loads(answer.read())

    def form(self, content):
        head = '--edge\r\nContent-Disposition: form-data; name="files"; filename="walk.mp4"\r\n\r\n'
        return head.encode() + content + b"\r\n--edge--\r\n"

    def upload(self, content):
        return self.post("/gradio_api/upload", self.form(content), "multipart/form-data; boundary=edge")[0]

    def act(self, name, data):
        """Trigger a function of the page, such as "screen"; returns its outputs."""
        (number,) = (one["id"] for one in self.config["dependencies"] if one["api_name"] == name)
        self.post("/gradio_api/queue/join", json.dumps({"fn_index": number, "data": data, "session_hash": SESSION}).encode())
        with urllib.request.urlopen(f"{self.root}/gradio_api/queue/data?session_hash={SESSION}", timeout=30) as events:
            for line in events:
                event = json.loads(line[6:]) if line.startswith(b"data: ") else {}
                if event.get("msg") == "process_completed":
                    assert event["success"], event
                    return event["output"]["data"]
        raise AssertionError("the server ended before it answered")


def eventually(true):
    end = time.monotonic() + 5
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of pandas, to gradio
@pytest.mark.skipif(importlib.util.find_spec("gradio") is None, reason='needs gradio: pip install "scoliojax[app]"')
def test_the_page_answers_this_computer_and_keeps_nothing(network, clip, tmp_path, monkeypatch):  # absl would close capsys
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    for name in ("GRADIO_TEMP_DIR", "GRADIO_ANALYTICS_ENABLED", "NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # so that they are afterwards as before
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    monkeypatch.setattr(app.tempfile, "tempdir", str(scratch))
    monkeypatch.setattr("scoliojax.runs.run.open_run", lambda *_: SimpleNamespace(network=lambda _: network))
    monkeypatch.setattr(app, "make_segmenter", lambda *_: Background())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    connected = []
    real = socket.socket.connect

    def connect(self, address):
        connected.append(address[0])
        return real(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect)
    opened = []
    original = app.open_page
    monkeypatch.setattr(app, "open_page", lambda *given: opened.append(original(*given)) or opened[0])

    def use_it():
        (listening,) = opened[0].server.servers
        assert [one.getsockname()[0] for one in listening.sockets] == ["127.0.0.1"]
        page = Page(port)
        text = page.get("/").decode() + page.get("/theme.css").decode()
        assert "not a medical device and not a diagnosis" in text
        assert "trained on synthetic walkers" in text
        assert "needs models that are not here (python -m data_pipelines.video.fetch" in text
        assert not re.search(r"""(src|href|url\()\s*=?\s*["']?(https?:)?//(?!127)""", text)
        assert '"analytics_enabled":false' in text.replace(" ", "")
        with pytest.raises(urllib.error.HTTPError, match="400"):
            page.get("/", Host="elsewhere.example")
        with pytest.raises(urllib.error.HTTPError, match="413"):
            page.upload(bytes(2**20 + 1))
        assert not files(scratch)

        broken = page.form(clip[0])[:5000]
        with socket.create_connection(("127.0.0.1", port)) as line:
            head = "POST /gradio_api/upload HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=edge\r\n"
            line.sendall(f"{head}Content-Length: 90000\r\n\r\n".encode() + broken)
            eventually(lambda: files(scratch))
        eventually(lambda: not files(scratch))

        file = {"path": page.upload(clip[0]), "meta": {"_type": "gradio.FileData"}}
        page.act("take", [file])
        eventually(lambda: len(files(scratch)) == 1)
        spoken, progress, people, answer, video, _, _ = page.act("screen", ["background", "", None])
        assert "Gait screening of walk.mp4" in answer
        assert spoken in html.unescape(answer)
        assert progress == people == ""
        assert video is None
        eventually(lambda: not files(scratch))

        with urllib.request.urlopen(f"{page.root}/gradio_api/heartbeat/{SESSION}") as tab:
            tab.readline()
            page.act("take", [{"path": page.upload(clip[0]), "meta": {"_type": "gradio.FileData"}}])
            eventually(lambda: len(files(scratch)) == 1)
        eventually(lambda: not files(scratch))
        page.act("take", [{"path": page.upload(clip[0]), "meta": {"_type": "gradio.FileData"}}])
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "threading", SimpleNamespace(Event=lambda: SimpleNamespace(wait=use_it)))
    command.main(["--checkpoint", str(tmp_path), "--port", str(port), "--megabytes", "1"])
    assert not list(scratch.iterdir())
    assert set(connected) == {"127.0.0.1"}
