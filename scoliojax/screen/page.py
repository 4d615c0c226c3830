"""The files of an answer: `result.json`, `report.html`, the silhouettes as a contact sheet and an animation."""

import datetime
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from data_pipelines.schema import CLASSES, DataError
from data_pipelines.video.decoding import Video
from scoliojax.files import write_json
from scoliojax.html import embedded, render
from scoliojax.runs.environment import git_commit
from scoliojax.runs.posture import TURNED
from scoliojax.runs.posture_curves import curves_png, number
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.figures import svg
from scoliojax.screen import wording
from scoliojax.screen.answer import Answer
from scoliojax.screen.pictures import candidates_sheet, contact_sheet, draw_strips, draw_windows, eight, write_animation

SCALE_END = 1.25  # of the scale of distances, as a multiple of the bound


@dataclass(frozen=True)
class Pictures:
    """The pictures of a report as data URLs; empty where a report has none."""

    on_top: list[tuple[int, str]]  # numbers of frames, and their silhouettes
    sheet: str
    animation: str
    windows: str = ""
    strips: str = ""
    candidates: str = ""
    posture: str = ""


def write_answer(folder: Path, answer: Answer, result: dict[str, Any]) -> None:
    """Write every file of an answer into an existing folder; `result` from `result.as_dict`."""
    walk, shown, read = answer.walk, answer.pictures, answer.network.modality  # shown: s 64 64
    write_json(folder / "result.json", result)
    sheet = png(contact_sheet(shown, walk.frames))
    (folder / f"{read}.png").write_bytes(sheet)
    write_animation(folder / f"{read}.gif", shown, walk.times)
    candidates = None
    if result["people"] is not None and walk.shape is not None:
        candidates = png(candidates_sheet(walk.people, walk.shape))
        (folder / "candidates.png").write_bytes(candidates)
    known = result["answer"] is not None
    pictures = Pictures(
        on_top=[(number, embedded(png(frame), "image/png")) for number, frame in eight(shown, walk.frames)],
        sheet=embedded(sheet, "image/png"),
        animation=embedded((folder / f"{read}.gif").read_bytes(), "image/gif"),
        windows=embedded(svg(draw_windows(answer), "windows"), "image/svg+xml") if known and not result["too_short"] else "",
        strips=embedded(svg(draw_strips(answer), "strips"), "image/svg+xml") if known else "",
        candidates="" if candidates is None else embedded(candidates, "image/png"),
        posture=embedded(curves_png(answer.posture), "image/png") if answer.posture and answer.posture.measures else "",
    )
    page = render_report(result, pictures)
    (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")


def render_report(result: dict[str, Any], pictures: Pictures) -> str:
    """The report of a screening, from the content of `result.json`."""
    evaluation, far = result["network"]["evaluation"], result["typicality"]
    names = ("sensitivity", "specificity")
    return render(
        "screening.html.j2",
        title=f"Gait screening of {result['input']['name']}",
        mark=" (synthetic)" if result["synthetic"] else "",
        result=result,
        classes=CLASSES,
        words=wording,
        threshold=wording.threshold(result),
        evaluation=evaluation and {name: wording.estimate(Estimate(**evaluation[name])) for name in names},
        scale=far
        and {name: min(100, round(100 * far[name] / (SCALE_END * far["bound"]))) for name in ("distance", "usual", "bound")},
        digits=lambda value: f"{value:.3g}",
        pictures=pictures,
        number=number,
        turned=TURNED,
        now=datetime.date.today().isoformat(),
        commit=git_commit(),
    )


def write_frames(folder: Path, path: Path, answer: Answer) -> None:
    """Write the frames that were used, upright, short side at most 480 pixels, as PNG files named by their numbers."""
    used = set(answer.walk.frames[: answer.frames_used].tolist())
    folder.mkdir()
    for frame in Video(path).frames():
        if frame.number in used:
            (folder / f"{frame.number:06d}.png").write_bytes(png(cv2.cvtColor(frame.image, cv2.COLOR_RGB2BGR)))


def png(picture) -> bytes:
    """A picture, uint8 `[h, w]` or BGR `[h, w, 3]`, as the content of a PNG file."""
    written, content = cv2.imencode(".png", picture)
    if not written:
        raise DataError(f"a picture of shape {picture.shape} cannot be encoded as PNG")
    return content.tobytes()
