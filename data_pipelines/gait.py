"""Movement of the legs seen from the front or the back: do left and right alternate, how often, and how regularly?

In this view a step moves one foot up the picture and the other down, so the feet's area is now left of the legs' middle, now
right of it: that share, over time, is the signal of gait. The colour of the clothes, the person's size and a shift of the
picture do not change it, and what is no walk rarely has it. Axis letters as in `data_pipelines.schema`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from data_pipelines.findings import Finding
from data_pipelines.schema import FRAME_SIZE

LEGS, FEET, SOLES = slice(36, 64), slice(50, 64), slice(58, 64)  # rows of a silhouette
# The legs are not those of a walker beyond one of these.
STILL, STILL_BRIEF = 0.08, 0.025  # deviation of the signal; of a walk of less than `BRIEF` frames, too short for a whole step
BRIEF = 24
ON_THE_GROUND = 0.8  # deviation of the soles' signal by that of the feet's: a foot in the air is not in the lowest rows
TOGETHER = 0.2  # share of the legs' variance in which left and right do the opposite
# A cycle, two steps, is found where the signal's autocorrelation has a peak that high above the valley before it.
PEAK, CLEAR_PEAK = 0.4, 0.75  # for a smooth signal, and for any
SMOOTH = 0.15  # autocorrelation from one frame to the next
SHORTEST_CYCLE, LONGEST_CYCLE = 3, 2 / 3  # frames, and share of the walk
ENOUGH_FRAMES, ENOUGH_SECONDS = 54, 2.7  # from which a walk must show a cycle: 1.5 of the slowest, of 1.8 s
GAP = 4.5  # usual steps in time; over longer gaps nothing is known of the rhythm
LEAST_CYCLES = 2.0
STAYS, FEW_CYCLES = "still", "few gait cycles"  # names of findings that others ask for


@dataclass(frozen=True)
class Gait:
    """The rhythm of a walk, None for what cannot be found."""

    cycles: float | None  # number of gait cycles, of two steps each, in the walk
    frames_per_cycle: float | None
    cadence: float | None  # steps a minute; None also where no times are known


class Legs(NamedTuple):
    """What the legs of a walk do."""

    signal: np.ndarray  # float [s]; area of the feet left of the legs' middle less that right of it, by both
    soles: float  # deviation of the same signal of the lowest rows alone
    together: float  # variance of the part in which left and right do the same, by the area of the body
    opposite: float  # variance of the part in which they do the opposite, by the area of the body


def legs_of(person: np.ndarray) -> Legs:
    """Movement of the legs of a walk, bool `[s, 64, 64]`."""
    legs = person[:, FRAME_SIZE // 2 :]  # s 32 64
    middle = legs.sum(axis=1) @ np.arange(FRAME_SIZE) / np.maximum(legs.sum(axis=(1, 2)), 1)  # s
    shift = (FRAME_SIZE - 1) / 2 - middle  # s; columns, with a fraction
    whole = np.floor(shift).astype(int)  # s
    part = (shift - whole).astype(np.float32)[:, None, None]  # s 1 1
    columns = (np.arange(FRAME_SIZE + 1) - 1 - whole[:, None]) % FRAME_SIZE  # s 65
    legs = np.take_along_axis(person[:, LEGS].astype(np.float32), columns[:, None], axis=2)  # s 28 65
    legs = (1 - part) * legs[..., 1:] + part * legs[..., :-1]  # s 28 64
    left, right = legs[..., : FRAME_SIZE // 2], legs[..., : FRAME_SIZE // 2 - 1 : -1]  # s 28 32, from the outside in
    area = max(float(person.sum(axis=(1, 2)).mean()), 1.0)
    together, opposite = ((left + sign * right).var(axis=0).sum() / 2 / area for sign in (1, -1))
    widths = left.sum(axis=2), right.sum(axis=2)  # s 28, s 28
    signal = _balance(widths, FEET, np.arange(1.0, FEET.stop - FEET.start + 1))  # s; lower rows count more
    soles = _balance(widths, SOLES, np.ones(SOLES.stop - SOLES.start)).std()
    return Legs(signal, float(soles), float(together), float(opposite))


def _balance(widths: tuple[np.ndarray, np.ndarray], rows: slice, weights: np.ndarray) -> np.ndarray:
    """Area on the left less that on the right, by the usual area of both: two of `[s, 28]` to float `[s]`."""
    first, second = (side[:, rows.start - LEGS.start :] @ weights for side in widths)  # s, s
    return (first - second) / max(float(np.median(first + second)), 1.0)  # s


def gait_of(legs: Legs, times: np.ndarray | None) -> Gait:
    """Rhythm of the legs; `times` in seconds, float `[s]`, may have gaps and an uneven rate.

    The rhythm is that of the longest piece without a gap; cycles are counted in all frames.
    """
    signal, step, piece = legs.signal, None, slice(None)
    if times is not None and len(times) > 2 and (step := float(np.median(np.diff(times)))) > 0:
        piece = unbroken(times)
        even = np.arange(times[piece][0], times[piece][-1] + step / 2, step)  # t
        signal = np.interp(even, times[piece], signal[piece])  # t
    else:
        step = None
    period = _period(signal)
    if period is None:
        return Gait(None, None, None)
    seen = len(signal) * len(legs.signal) / len(legs.signal[piece])  # frames, with those that are missing between others
    return Gait(seen / period, period, None if step is None else 120.0 / (period * step))


def unbroken(times: np.ndarray | None) -> slice:
    """The longest piece of a walk without a gap of more than `GAP` frames; `times`: float `[s]`, None for no gaps."""
    if times is None or len(times) < 2:
        return slice(None)
    steps = np.diff(times)  # s-1
    ends = np.flatnonzero(steps > GAP * np.median(steps)) + 1
    first, last = max(zip([0, *ends], [*ends, len(times)], strict=True), key=lambda piece: piece[1] - piece[0])
    return slice(int(first), int(last))


def movement(legs: Legs, gait: Gait, times: np.ndarray | None) -> Iterator[Finding]:
    """What is wrong with the movement of the legs, the first cause first; `times` as for `gait_of`."""
    frames = len(legs.signal)
    if legs.signal.std() < (STILL if frames >= BRIEF else STILL_BRIEF):
        yield Finding(STAYS, None, "the feet hardly move: a picture, somebody who stands, or no feet; record a walk", True)
        return
    if legs.soles < ON_THE_GROUND * legs.signal.std():
        message = "what stands on the ground does not leave it in turn, as feet do: a vehicle, furniture, or covered feet"
        yield Finding("no steps", None, message, True)
        return
    if legs.opposite < TOGETHER * (legs.opposite + legs.together):
        message = (
            "left and right leg do not alternate: jumping, squatting, a view from the side, or no person; record somebody who "
            "walks towards the camera or away from it"
        )
        yield Finding("no alternating steps", None, message, True)
        return
    if gait.cycles is None:
        piece = unbroken(times)
        signal, frames = legs.signal[piece], len(legs.signal[piece])
        seconds = None if times is None else float(times[piece][-1] - times[piece][0])
        enough = frames >= ENOUGH_FRAMES if seconds is None else frames >= BRIEF and seconds >= ENOUGH_SECONDS
        if enough:
            message = (
                "no periodic gait: the steps do not repeat, as they do in a walk of two strides; record a walk, and give its "
                "frames in their order"
            )
            yield Finding("no periodic gait", None, message, not 0 < _smoothness(signal) < SMOOTH)  # that may be thin legs
            return
    if gait.cycles is None or gait.cycles < LEAST_CYCLES:
        seen = "no whole gait cycle (two steps)" if gait.cycles is None else f"{gait.cycles:.1f} gait cycles (two steps each)"
        yield Finding(FEW_CYCLES, None, f"{seen} found, two or more are better; record a longer walk", False)


def _smoothness(signal: np.ndarray) -> float:
    """Autocorrelation of a signal, float `[s]`, from one frame to the next."""
    wave = signal - signal.mean()  # s
    return float(wave[1:] @ wave[:-1] / max(len(wave) - 1, 1) / max(float(wave @ wave) / len(wave), 1e-12))


def _period(signal: np.ndarray) -> float | None:
    """Frames of one cycle of the signal, float `[s]`, or None where it does not repeat."""
    frames = len(signal)
    wave = signal - signal.mean()  # s
    power = float(wave @ wave) / frames
    last = int(LONGEST_CYCLE * frames)  # the longest cycle, of which a third is seen twice
    if power <= 1e-12 or last <= SHORTEST_CYCLE:
        return None
    lags = np.arange(last + 1)
    sums = np.correlate(wave, wave, mode="full")[frames - 1 : frames + last]  # lags; from 0
    likeness = sums / (frames - lags) / power  # lags
    trust = np.sqrt(1 - lags / frames)  # lags; where the overlap is short, chance makes peaks
    peaks = {}  # lag: height above the valley before it
    for lag in range(SHORTEST_CYCLE, last):
        if likeness[lag] >= max(likeness[lag - 1], likeness[lag + 1]) and likeness[lag] > 0:
            peaks[lag] = (likeness[lag] - likeness[1:lag].min()) * trust[lag]
    highest = max(peaks.values(), default=0.0)
    if highest < (PEAK if _smoothness(signal) >= SMOOTH else CLEAR_PEAK):
        return None
    lag = next(lag for lag, height in peaks.items() if height >= 0.7 * highest)  # two and three cycles repeat as well
    before, here, after = likeness[lag - 1 : lag + 2]
    bend = before - 2 * here + after
    return lag + (0.5 * float((before - after) / bend) if bend < 0 else 0.0)
