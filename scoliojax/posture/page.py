"""The files of a posture: `posture.json`, two tables, the curves, and a page."""

import datetime
from pathlib import Path
from typing import Any

from scoliojax.files import write_csv, write_json
from scoliojax.html import embedded, render
from scoliojax.runs.posture import FRAME_COLUMNS, MEASURE_COLUMNS, TURNED, Posture, frame_rows, measure_rows
from scoliojax.runs.posture_curves import curves_png, number

FILES = {"posture.json", "frames.csv", "measures.csv", "curves.png", "report.html"}


def write_posture(folder: Path, found: Posture, result: dict[str, Any]) -> None:
    """Write every file of a posture into an existing folder; `result` from `measures.as_dict`."""
    write_json(folder / "posture.json", result)
    curves = ""
    if found.measures:
        write_csv(folder / "frames.csv", FRAME_COLUMNS, frame_rows(found))
        write_csv(folder / "measures.csv", MEASURE_COLUMNS, measure_rows(result))
        picture = curves_png(found)
        (folder / "curves.png").write_bytes(picture)
        curves = embedded(picture, "image/png")
    page = render(
        "posture.html.j2",
        title=f"Posture in {result['input']['name']}",
        mark=" (synthetic)" if result["synthetic"] else "",
        result=result,
        posture=result,
        curves=curves,
        number=number,
        turned=TURNED,
        now=datetime.date.today().isoformat(),
    )
    (folder / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
