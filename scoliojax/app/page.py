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

from data_pipelines.video.backends import make_segmenter
from data_pipelines.video.background import Background
from data_pipelines.video.fetch import REMEDY
from scoliojax.app.desk import CAMERAS, Desk, page_part
from scoliojax.app.progress import Stage, follow
from scoliojax.errors import RunError
from scoliojax.runs.run import TrainedNetwork
from scoliojax.screen.result import DISCLAIMER

if TYPE_CHECKING:
    import gradio

HOST = "127.0.0.1"
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'none'"  # gradio evaluates code
UNCLAIMED = 60  # seconds until gradio deletes an upload that no page used
# Every text has a contrast of at least 4.5 to what is behind it, in light and in dark (measured by tests/browser.js).
COLOURS = dict.fromkeys(("block_info_text_color", "block_label_text_color", "block_title_text_color"), "*body_text_color")
COLOURS |= {"body_text_color_subdued": "*neutral_600", "body_text_color_subdued_dark": "*neutral_300"}
COLOURS |= {"block_label_text_color_dark": "*body_text_color", "block_title_text_color_dark": "*body_text_color"}
COLOURS |= {f"button_primary_background_fill{end}": "*primary_700" for end in ("", "_dark", "_hover", "_hover_dark")}
# What runs in the browser: a region that screen readers speak, the numbers of the people clicked, and the way to the answer.
LIVE = "element.setAttribute('role', 'status')"
CHOSEN = """(camera, prevalence) =>
    [camera, prevalence, [...document.querySelectorAll('#people input:checked')].map(one => Number(one.value))]"""
INTO_VIEW = """() => document.querySelector(document.querySelector('#people input') ? '#people' : '#answer').scrollIntoView()"""


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
        gr.HTML(page_part(part="head", synthetic=desk.synthetic, disclaimer=DISCLAIMER), padding=False)
        with gr.Row():
            video = gr.File(label=f"Video (at most {megabytes} MB)", height=220)
            with gr.Column():
                info = "“may move” suits any video; “stands still” needs an empty scene and no model"
                if "pose" not in desk.backends:
                    info = f"a camera that may move needs models that are not here ({REMEDY})"
                choices = [(CAMERAS[name], name) for name in desk.backends]
                camera = gr.Radio(choices, value=desk.backends[0], label="Camera", info=info)
                info = "of 100 people who are screened where you are, how many are positive or neutral? May stay empty"
                prevalence = gr.Textbox(label="Prevalence (%)", info=info)
        people = gr.HTML(elem_id="people")
        start = gr.Button("Screen this walk", variant="primary", interactive=False)
        stop = gr.Button("Cancel", visible=False)
        spoken = gr.HTML(elem_id="spoken", js_on_load=LIVE)
        progress = gr.HTML(elem_id="progress")
        answer = gr.HTML(elem_id="answer", padding=False)
        chosen = gr.JSON(visible="hidden")  # filled in the browser with the numbers of the pictures that are clicked

        def take(path: str, request: gr.Request):
            desk.take(str(request.session_hash), Path(path))
            return gr.Button(interactive=True), "", "", "The video is here."

        def leave(request: gr.Request):
            desk.forget(str(request.session_hash))

        def forget(request: gr.Request):
            leave(request)
            return gr.Button(interactive=False), "", ""

        def screen(camera: str, prevalence: str, chosen: list[int] | None, request: gr.Request):
            work = partial(desk, str(request.session_hash), camera, chosen or [], prevalence)
            stage = ""
            for step in follow(lambda report: work(report=report)):
                if isinstance(step, Stage):
                    shown = page_part(part="progress", **step._asdict())
                    said, stage = gr.skip() if step.name == stage else step.name, step.name
                    yield said, shown, gr.skip(), "", gr.skip(), gr.Button(interactive=False), gr.Button(visible=True)
                else:
                    video = gr.skip() if step.kept else None
                    ready, ended = gr.Button(interactive=step.kept), gr.Button(visible=False)
                    yield step.spoken, "", step.people, step.answer, video, ready, ended

        def fail():
            message = "This page failed at the video, which is deleted; the terminal that serves the page says why."
            said = page_part(part="mistake", message=message)
            return message, "", "", said, None, gr.Button(interactive=False), gr.Button(visible=False)

        camera.change(
            lambda: "", None, people, api_visibility="private", queue=False
        )  # another way finds others, in other order
        video.upload(take, video, [start, people, answer, spoken], api_visibility="private", queue=False)
        video.clear(forget, None, [start, people, spoken], api_visibility="private", queue=False)
        shown = [spoken, progress, people, answer, video, start, stop]
        options: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": None, "show_progress": "hidden"}
        read = start.click(screen, [camera, prevalence, chosen], shown, js=CHOSEN, **options)
        read.then(None, js=INTO_VIEW)
        read.failure(fail, None, shown, api_visibility="private", queue=False)
        stop.click(leave, api_visibility="private", queue=False)
        page.unload(leave)

    theme = Default(primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"])  # strings: local fonts
    theme.set(**COLOURS)
    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no other host name leads here
    middleware = [hosts, Middleware(Guard, uploads=uploads)]
    launch: dict[str, Any] = {"prevent_thread_lock": True, "quiet": True, "footer_links": [], "theme": theme}
    launch |= dict.fromkeys(("share", "inline", "ssr_mode", "mcp_server", "enable_monitoring", "run_history"), False)
    launch |= {"max_file_size": megabytes * 2**20, "app_kwargs": {"middleware": middleware}}
    page.launch(server_name=HOST, server_port=port, **launch)
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
