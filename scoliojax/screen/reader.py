"""Reading of one input into a folder with its answer."""

import re
from pathlib import Path
from typing import Any

from data_pipelines.schema import CHANNELS, DataError
from data_pipelines.video.flags import Flag
from data_pipelines.video.people import Person, Segmenter, SeveralPeopleError
from data_pipelines.video.walk import Report, needs_segmenter, read_walk, silent
from scoliojax.errors import RunError
from scoliojax.files import whole_folder
from scoliojax.runs.inputs import check_target as check
from scoliojax.screen.answer import Screener
from scoliojax.screen.page import png, write_answer, write_frames
from scoliojax.screen.pictures import candidates_sheet
from scoliojax.screen.result import NOTHING_MORE, Wanted, as_dict

FILES = {"result.json", "report.html", "frames", "candidates.png"}
FILES |= {f"{modality}.{kind}" for modality in CHANNELS for kind in ("png", "gif")}


class ChooseError(RunError):
    """Several people walk in a video, and the user has to choose among `candidates`, seen in frames of `shape` (h, w)."""

    def __init__(self, message: str, candidates: list[Person], shape: tuple[int, int]):
        super().__init__(message)
        self.candidates, self.shape = candidates, shape


def check_target(folder: Path, inputs: list[Path], anew: bool) -> None:
    """Raise `RunError` where an answer would replace one of the inputs, or anything but an earlier answer.

    With `anew`, the user did not name the folder, so an answer for another input is not replaced either.
    """
    check(folder, inputs, FILES, "a screening", "result.json" if anew else "")
    frames = folder / "frames"
    if frames.exists() and not all(re.fullmatch(r"[0-9]{6,}\.png", path.name) for path in frames.iterdir()):
        raise RunError(f"--output={folder} holds something else than a screening (in frames); give a new folder")


def write_result(
    screener: Screener,
    segmenter: Segmenter | None,
    path: Path,
    folder: Path,
    person: list[int] | None,
    keep_frames: bool,
    wanted: Wanted = NOTHING_MORE,
    report: Report = silent,
    beside: Screener | None = None,
) -> dict[str, Any]:
    """Write the answer for one input into `folder`, as a whole, and return the content of `result.json`.

    `beside` reads the same walk with another network.
    `person` as in `people.choose`; `keep_frames` also writes the frames of the video that were used. A walk that gets no
    answer has its report, too, which says why. `DataError` or `RunError` where there is no walk; `ChooseError`
    where several people walk, whom `candidates.png` in the folder shows. `report` as in `read_walk`.
    """
    used = segmenter if needs_segmenter(path) else None
    try:
        walk = read_walk(path, used, person, report)
    except SeveralPeopleError as error:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "candidates.png").write_bytes(png(candidates_sheet(error.candidates, error.shape)))
        message = f"{error} ({folder / 'candidates.png'} shows them)"
        raise ChooseError(message, error.candidates, error.shape) from None
    report("reading the walk", 0, None)
    answer, other, apart = screener(walk, report), None, []
    if beside:
        try:
            other = beside(walk, report)
        except DataError as error:  # nothing that this network reads; the first answer stands
            apart = [Flag("no answer beside", None, str(error))]
    name, models = (used.name, used.models) if used else (None, {})
    kept = keep_frames and used is not None
    result: dict[str, Any] = as_dict(answer, name, models, person, wanted, other) | {"kept_frames": kept}
    result["flags"] += [flag._asdict() for flag in apart]
    report("writing the report", 0, None)
    with whole_folder(folder) as fresh:
        write_answer(fresh, answer, result)
        if kept:
            write_frames(fresh / "frames", path, answer)
    return result
