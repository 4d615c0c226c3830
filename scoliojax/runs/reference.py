"""The reference of a network, from the training and the validation part of its cohort."""

import sys
from functools import partial

import numpy as np

from data_pipelines.command import unwritable
from scoliojax.devices import cluster
from scoliojax.runs.cohort import Cohort, Cut
from scoliojax.runs.run import TrainedNetwork
from scoliojax.scores import reference
from scoliojax.scores.metrics import refuse_not_finite
from scoliojax.scores.people import one_of_each
from scoliojax.scores.reference import NoSpreadError, Reference
from scoliojax.training.evaluate import evaluate


def refer(network: TrainedNetwork, cohort: Cohort, keep: bool = True) -> Reference | None:
    """The reference of a network: that saved beside its checkpoint, or fitted now; `keep`: save the fitted one there.

    None where there are fewer than ten validation subjects, on whom the bounds rest, or a strip of the network gives all
    walks one embedding. Of each training walk 60 evenly spaced frames are read, of each validation walk one cut of each length.
    """
    if kept := network.reference:
        return kept
    validation = cohort.partition.validation
    rows = validation[one_of_each([cohort.data.subjects[row] for row in validation])]  # v
    if len(rows) < reference.FEWEST:
        return None
    frames = np.minimum(cohort.data.n_frames, cohort.config.data.max_eval_frames)  # of every sequence
    training = _embeddings(network, cohort, cohort.partition.train, _spread, reference.FRAMES)  # n p c
    lengths = reference.cut_lengths(frames[rows])
    cuts = {
        length: _embeddings(network, cohort, rows[frames[rows] >= length], partial(_somewhere, length), length, keep=True)
        for length in lengths
    }
    try:
        fitted = reference.fit(training, cuts, network.digest, cohort.data.synthetic)
    except NoSpreadError as error:
        if cluster.is_first():
            print(f"warning: no distance from training is measured: {error}", file=sys.stderr)
        return None
    if keep and cluster.is_first():
        path = reference.reference_file(network.directory, network.step)
        try:
            reference.write(path, fitted)
        except OSError as error:  # as with the calibration
            print(f"warning: the reference of the distances is not kept; {path} {unwritable(error)}", file=sys.stderr)
    return fitted


def _embeddings(
    network: TrainedNetwork, cohort: Cohort, rows: np.ndarray, cut: Cut, most: int, keep: bool = False
) -> np.ndarray:
    """Embeddings `[n, p, c]` of cuts of the sequences `rows`, with arguments as in `Cohort.eval_batches`."""
    state, batches = network.state, cohort.eval_batches(rows, network.run.mesh, keep, cut, most)
    predictions = evaluate(network.run.eval_step, state.params, state.batch_stats, batches)
    refuse_not_finite(predictions.logits, [cohort.data.sequences[row] for row in predictions.rows])
    assert predictions.embeddings is not None  # as requested
    return predictions.embeddings


def _spread(row: int, frames: int) -> np.ndarray:
    """Evenly spaced frames of a whole walk."""
    count = min(frames, reference.FRAMES)
    return np.arange(count) * frames // count  # count


def _somewhere(length: int, row: int, frames: int) -> slice:
    """So many frames in a row, at a place drawn for the sequence."""
    start = int(np.random.default_rng((row, length)).integers(frames - length + 1))
    return slice(start, start + length)
