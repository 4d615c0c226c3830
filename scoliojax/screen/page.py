"""The files of an answer: `result.json`, `report.html`, the silhouettes as a contact sheet and an animation."""

import datetime
from pathlib import Path
from typing import Any

import cv2

from data_pipelines.schema import CLASSES, DataError
from data_pipelines.video.decoding import Video
from scoliojax.files import write_json
from scoliojax.html import embedded, render
from scoliojax.runs.environment import git_commit
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.figures import svg
from scoliojax.scores.results import cell
from scoliojax.screen.answer import Answer
from scoliojax.screen.pictures import contact_sheet, draw_strips, draw_windows, write_animation
from scoliojax.screen.result import verdict


def write_answer(folder: Path, answer: Answer, result: dict[str, Any]) -> None:
    """Write every file of an answer into an existing folder; `result` from `result.as_dict`."""
    walk = answer.walk
    silhouettes = walk.silhouettes[: answer.frames_used]  # s 64 64
    write_json(folder / "result.json", result)
    sheet = png(contact_sheet(silhouettes, walk.frames))
    (folder / "silhouettes.png").write_bytes(sheet)
    write_animation(folder / "silhouettes.gif", silhouettes, walk.times)
    evaluation = result["network"]["evaluation"]
    (folder / "report.html").write_text(
        render(
            "screening.html.j2",
            title=f"Gait screening of {walk.name}",
            mark=" (synthetic)" if result["synthetic"] else "",
            result=result,
            classes=CLASSES,
            verdict=verdict(result),
            sheet=embedded(sheet, "image/png"),
            animation=embedded((folder / "silhouettes.gif").read_bytes(), "image/gif"),
            windows=embedded(svg(draw_windows(answer), "windows"), "image/svg+xml"),
            strips=embedded(svg(draw_strips(answer), "strips"), "image/svg+xml"),
            evaluation=evaluation and {name: cell(Estimate(**evaluation[name])) for name in ("sensitivity", "specificity")},
            now=datetime.date.today().isoformat(),
            commit=git_commit(),
        ),
        encoding="utf-8",
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
