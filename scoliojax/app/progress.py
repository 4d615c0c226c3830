"""Work in a thread of its own that tells how far it is."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import NamedTuple, TypeVar

from data_pipelines.video.walk import Report

T = TypeVar("T")


class Stage(NamedTuple):
    name: str
    done: int  # frames
    total: int | None  # frames; None if unknown


def follow(work: Callable[[Report], T], seconds: float = 0.3) -> Iterator[Stage | T]:
    """The stage of the work every `seconds`, where it is another than before, and at last its result.

    Where nobody follows it to the end, the work is waited for.
    """
    stages = [Stage("waiting", 0, None)]  # the newest last

    def report(*stage: str | int | None) -> None:
        stages[:] = [Stage(*stage)]  # pyright: ignore[reportArgumentType]

    shown: Stage | None = None
    with ThreadPoolExecutor(1) as worker:
        running: Future[T] = worker.submit(work, report)
        while not running.done():
            if stages[-1] != shown:
                shown = stages[-1]
                yield shown
            wait([running], timeout=seconds)
        yield running.result()
