"""The desk: it holds the video of each session until its answer, and deletes both."""

import math
import os
import re
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_pipelines.schema import DataError
from data_pipelines.video.people import Segmenter
from data_pipelines.video.walk import Report, silent
from scoliojax.errors import RunError
from scoliojax.html import embedded, render
from scoliojax.runs.run import TrainedNetwork
from scoliojax.screen.answer import Screener
from scoliojax.screen.page import png
from scoliojax.screen.pictures import candidate
from scoliojax.screen.reader import ChooseError, write_result
from scoliojax.screen.result import Wanted
from scoliojax.screen.wording import summary

CAMERAS = {"pose": "The camera may move", "background": "The camera stands still"}  # what each segmenter is for
page_part = partial(render, "app.html.j2")  # `part` and its values


class CancelledError(Exception):
    """The user does not want this answer any more."""


class Outcome(NamedTuple):
    """What the page shows when a video has been read."""

    answer: str  # HTML
    spoken: str  # the same in a sentence, for screen readers
    people: str = ""  # HTML with the people to choose among
    kept: bool = False  # a video is on the desk: this one, to be asked about again, or a later one


class Desk:
    """Holds the video of each session in `folder` until its answer, then deletes both."""

    def __init__(self, network: TrainedNetwork, segmenters: list[Segmenter], folder: Path):
        self._screener = Screener(network)
        self._screener.warm()
        self._segmenters = {segmenter.name: segmenter for segmenter in segmenters}
        self.synthetic, self.backends = network.synthetic, list(self._segmenters)
        self._folder = folder
        self._held: dict[str, tempfile.TemporaryDirectory] = {}
        self._unwanted: set[str] = set()  # sessions whose running answer is to end
        self._closed = False
        self._busy = threading.Lock()

    def take(self, session: str, upload: Path) -> None:
        """Move an upload to the desk, in place of an earlier one of the session."""
        self.forget(session)
        held = tempfile.TemporaryDirectory(dir=self._folder)
        upload.rename(Path(held.name, upload.name))
        upload.parent.rmdir()  # gradio named it by the video's checksum
        self._held[session] = held

    def forget(self, session: str) -> None:
        """Delete the video of a session, if there is one, and end its answer, if one is running."""
        self._unwanted.add(session)
        if held := self._held.pop(session, None):
            held.cleanup()

    def close(self) -> None:
        """End the running answer, which still writes files, and delete every video."""
        self._closed = True
        with self._busy:
            for session in list(self._held):
                self.forget(session)

    def __call__(self, session: str, backend: str, people: list[int], prevalence: str = "", report: Report = silent) -> Outcome:
        """The answer for the video of a session, or why there is none; then the disk holds no video and no answer.

        The video stays where the user has to choose among several people, or has to mend the prevalence.

        Args:
          session: of the user's page.
          backend: name of a segmenter.
          people: numbers of the candidates that were chosen.
          prevalence: percentage of positive or neutral people, as the user wrote it; may be empty.
          report: told the stages.
        """
        try:
            wanted = Wanted(None, _share(prevalence))
        except RunError as error:
            return _mistake(str(error))._replace(kept=session in self._held)
        held = self._held.pop(session, None)
        if held is None:
            return _mistake("There is no video here any more; choose it again.")
        self._unwanted.discard(session)

        def told(stage: str, done: int, total: int | None) -> None:
            if self._closed or session in self._unwanted:
                raise CancelledError
            report(stage, done, total)

        kept = False
        try:
            with self._turn(told):
                outcome = self._answer(Path(held.name), backend, people or None, wanted, told)
                if kept := outcome.kept and session not in self._unwanted:
                    self._held[session] = held
        except CancelledError:
            outcome = Outcome("", "Cancelled; the video is deleted.")
        finally:
            if not kept:
                held.cleanup()
        return outcome._replace(kept=session in self._held)  # another video may have come meanwhile

    @contextmanager
    def _turn(self, report: Report) -> Iterator[None]:
        """One walk at a time is read; `report` is told that this one waits."""
        while not self._busy.acquire(timeout=0.2):
            report("waiting", 0, None)
        try:
            yield
        finally:
            self._busy.release()

    def _answer(self, place: Path, backend: str, people: list[int] | None, wanted: Wanted, report: Report) -> Outcome:
        (video,) = (path for path in place.iterdir() if path.name != "answer")
        with tempfile.TemporaryDirectory(dir=self._folder) as name:
            folder = Path(name, "answer")
            try:
                network, segmenter = self._screener, self._segmenters[backend]
                result = write_result(network, segmenter, video, folder, people, False, wanted, report)
            except ChooseError as error:
                return _choice(error)
            except (DataError, RunError, OSError) as error:
                return _mistake(on_a_page(str(error).replace(f"{place}{os.sep}", "")))
            page = (folder / "report.html").read_text(encoding="utf-8")
        file, spoken = embedded(page.encode(), "text/html"), summary(result)
        return Outcome(page_part(part="answer", summary=spoken, report=page, file=file), spoken)


def _share(text: str) -> float | None:
    """A percentage as a user writes it, as a share; None for an empty text."""
    if not (given := text.strip().removesuffix("%").strip().replace(",", ".")):
        return None
    try:
        share = float(given) / 100
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise RunError(f"prevalence {text.strip()[:40]!r} is no percentage between 0 and 100; give one such as 3, or none")
    return share


def _mistake(message: str) -> Outcome:
    return Outcome(page_part(part="mistake", message=message), message)


def _choice(error: ChooseError) -> Outcome:
    people = [
        {
            "number": number,
            "picture": embedded(png(candidate(person, error.shape)), "image/png"),
            "frames": len(person.usable),
            "start": f"{person.usable[0].time:.1f}",
            "end": f"{person.usable[-1].time:.1f}",
        }
        for number, person in enumerate(error.candidates, 1)
    ]
    spoken = f"{len(people)} people walk here. Choose the one to screen."
    return Outcome("", spoken, page_part(part="people", people=people, spoken=spoken), kept=True)


def on_a_page(message: str) -> str:
    """A message that names options of the command line, for a page that has none."""
    message = message.replace("another --backend", "the other choice about the camera")
    for name, words in CAMERAS.items():
        message = re.sub(rf"--backend[ =]{name}", f'"{words}"', message)
    return message.replace("--", "")
