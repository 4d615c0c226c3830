"""The page: it takes a video, shows the answer, and deletes both."""  # no `from __future__ import annotations`, see below

# gradio passes a request to parameters that are annotated with its class, so annotations may not become strings.
import importlib.util
import os
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from data_pipelines.schema import FRAME_SIZE, DataError
from data_pipelines.video.backends import make_segmenter
from data_pipelines.video.background import Background
from data_pipelines.video.decoding import SUFFIXES
from data_pipelines.video.fetch import REMEDY
from data_pipelines.video.people import Segmenter
from data_pipelines.video.walk import Walk
from scoliojax.errors import RunError
from scoliojax.html import embedded, render
from scoliojax.runs.run import TrainedNetwork
from scoliojax.screen.answer import CHUNK, Screener
from scoliojax.screen.reader import write_result
from scoliojax.screen.result import DISCLAIMER, verdict

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"  # gradio evaluates code
_page_part = partial(render, "app.html.j2")  # `part` and its values
UNCLAIMED = 60  # seconds until gradio deletes an upload that no page used


class Desk:
    """Holds the video of each session in `folder` until its answer, then deletes both; the user chooses the segmenter."""

    def __init__(self, network: TrainedNetwork, segmenters: list[Segmenter], folder: Path):
        screener = Screener(network)
        screener(Walk("nobody", "silhouettes", np.zeros((CHUNK, FRAME_SIZE, FRAME_SIZE), np.uint8), np.arange(CHUNK)))
        self._write = {segmenter.name: partial(write_result, screener, segmenter) for segmenter in segmenters}
        self.synthetic, self.backends = network.synthetic, list(self._write)
        self._folder = folder
        self._held: dict[str, tempfile.TemporaryDirectory] = {}
        self._busy = threading.Lock()

    def take(self, session: str, upload: Path) -> None:
        """Move an upload to the desk, in place of an earlier one of the session."""
        self.forget(session)
        held = tempfile.TemporaryDirectory(dir=self._folder)
        upload.rename(Path(held.name, upload.name))
        upload.parent.rmdir()  # gradio named it by the video's checksum
        self._held[session] = held

    def forget(self, session: str) -> None:
        """Delete the video of a session, if there is one."""
        if held := self._held.pop(session, None):
            held.cleanup()

    def close(self) -> None:
        """Wait for the running answer, which still writes files, and delete every video."""
        with self._busy:
            for session in list(self._held):
                self.forget(session)

    def __call__(self, session: str, backend: str, person: str) -> str:
        """HTML with the answer for the video of a session, or with the error; then the disk holds no video and no answer.

        `backend`: name of a segmenter; `person`: numbers of candidates as the user wrote them, may be empty.
        """
        held = self._held.pop(session, None)
        if held is None:
            return _page_part(part="mistake", message="There is no video here any more; choose it again.", picture=None)
        with self._busy, held as name:
            (video,) = Path(name).iterdir()
            answer, candidates = Path(name, "answer"), Path(name, "answer", "candidates.png")
            try:
                result = self._write[backend](video, answer, _numbers(person), keep_frames=False)
            except (DataError, RunError, OSError) as error:
                message = str(error).replace(str(candidates), "the picture below").replace(f"{name}{os.sep}", "")
                picture = embedded(candidates.read_bytes(), "image/png") if candidates.exists() else None
                return _page_part(part="mistake", message=message.replace("--", ""), picture=picture)
            report = (answer / "report.html").read_text(encoding="utf-8")
        return _page_part(part="answer", verdict=verdict(result), report=report, file=embedded(report.encode(), "text/html"))


def _numbers(text: str) -> list[int] | None:
    words = text.replace(",", " ").split()
    if wrong := [word for word in words if not word.isdecimal()]:
        raise RunError(f"person {wrong[0]!r} is no number; give one such as 2, or several of the same person such as 1 3")
    return [int(word) for word in words] or None


class Guard:
    """Middleware of gradio's server: pages load nothing from elsewhere, and a broken upload leaves no file in `uploads`."""

    def __init__(self, app: Any, uploads: Path):
        from starlette.requests import ClientDisconnect

        self._app, self._uploads, self._running, self._broken_off = app, uploads, 0, ClientDisconnect

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def restricted(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        upload = scope.get("path", "").endswith("/upload")
        self._running += upload
        try:
            with suppress(self._broken_off):
                await self._app(scope, receive, restricted)
        finally:
            self._running -= upload
            if not self._running:  # a complete upload lies in its own folder
                for path in filter(Path.is_file, self._uploads.iterdir()):
                    path.unlink(missing_ok=True)


def open_page(desk: Desk, uploads: Path, port: int, megabytes: int) -> "gradio.Blocks":
    """Serve the page in background threads until its `close`; `uploads` holds each video until the desk takes it."""
    os.environ |= {"GRADIO_TEMP_DIR": str(uploads), "GRADIO_ANALYTICS_ENABLED": "False"}  # before the import
    os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}  # gradio sends itself a request at the start
    import gradio as gr
    from gradio.themes import Default
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    with gr.Blocks(title="Gait screening", analytics_enabled=False, delete_cache=(UNCLAIMED, UNCLAIMED)) as page:
        gr.HTML(_page_part(part="head", synthetic=desk.synthetic, disclaimer=DISCLAIMER), padding=False)
        with gr.Row():
            video = gr.File(label=f"Video (at most {megabytes} MB)", file_types=sorted(SUFFIXES), height=220)
            with gr.Column():
                info = "pose follows a moving camera, too; background needs one that stands still, and no model"
                if "pose" not in desk.backends:
                    info = f"the camera has to stand still; pose does without that, but its models are not here ({REMEDY})"
                backend = gr.Radio(desk.backends, value=desk.backends[0], label="What finds the person", info=info)
                info = "only where several people walk: a number, or several numbers of the same person"
                person = gr.Textbox(label="Person", info=info)
                start = gr.Button("Screen this walk", variant="primary", interactive=False)
        answer = gr.HTML(padding=False)

        def take(path: str, request: gr.Request):
            desk.take(str(request.session_hash), Path(path))
            return gr.Button(interactive=True)

        def leave(request: gr.Request):
            desk.forget(str(request.session_hash))

        def forget(request: gr.Request):
            leave(request)
            return gr.Button(interactive=False)

        def screen(backend: str, person: str, request: gr.Request):
            return desk(str(request.session_hash), backend, person), None, gr.Button(interactive=False)

        video.upload(take, video, start, api_visibility="private", queue=False)
        video.clear(forget, None, start, api_visibility="private", queue=False)
        start.click(screen, [backend, person], [answer, video, start], api_visibility="private", concurrency_limit=1)
        page.unload(leave)

    theme = Default(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # strings: local fonts
    theme.set(block_info_text_color="*body_text_color")
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no other host name leads here
    middleware = [hosts, Middleware(Guard, uploads=uploads)]
    options: dict[str, Any] = {"prevent_thread_lock": True, "quiet": True, "footer_links": [], "theme": theme}
    options |= dict.fromkeys(("share", "inline", "ssr_mode", "mcp_server", "enable_monitoring", "run_history"), False)
    options |= {"max_file_size": megabytes * 2**20, "app_kwargs": {"middleware": middleware}}
    page.launch(server_name=HOST, server_port=port, **options)
    return page


def check_port(port: int) -> None:
    """Raise `RunError` if the port cannot be opened on this computer."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RunError(f"--port={port} cannot be opened on {HOST} ({reason}); give another --port") from None


def serve(open_network: Callable[[], TrainedNetwork], models: Path | None, port: int, megabytes: int) -> None:
    """Serve the page until the process is interrupted; `open_network` is called after all other checks.

    `models`: folder of the pose models, None for the default of `fetch`; `megabytes`: size of the largest video accepted.
    `RunError` for a missing library and a wrong size or port, `DataError` for models that cannot be used.
    """
    if importlib.util.find_spec("gradio") is None:
        raise RunError('the page needs gradio, which is not installed: pip install "scoliojax[app]"')
    if megabytes < 1:
        raise RunError(f"--megabytes={megabytes} accepts no video; give at least 1")
    check_port(port)
    segmenter = make_segmenter("auto", models)
    segmenters = [segmenter] if segmenter.name == "background" else [segmenter, Background()]
    network = open_network()
    with tempfile.TemporaryDirectory(prefix="scoliojax-app-") as name:
        uploads = Path(name, "uploads")
        uploads.mkdir()
        desk = Desk(network, segmenters, Path(name))
        page = open_page(desk, uploads, port, megabytes)
        print(f"http://{HOST}:{port} (from this computer only); Ctrl-C ends it", flush=True)
        try:
            threading.Event().wait()
        finally:
            page.close(verbose=False)
            desk.close()
