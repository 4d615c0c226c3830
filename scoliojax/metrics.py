"""Scores from labels and predictions, computed once over all rows, in numpy and scikit-learn."""

from __future__ import annotations

import numpy as np
from sklearn import metrics as sk


def softmax(logits: np.ndarray, scale: float) -> np.ndarray:
    """Class probabilities `[n, k]` from cosines `[n, k]` at the scale that the loss trained them with."""
    z = scale * logits.astype(np.float64)  # n k
    z = np.exp(z - z.max(axis=1, keepdims=True))  # n k
    return z / z.sum(axis=1, keepdims=True)  # n k


def classification_metrics(labels: np.ndarray, predictions: np.ndarray, classes: tuple[str, ...]) -> dict:
    """The published scores and the clinical ones.

    Args:
      labels: int `[n]` true class ids.
      predictions: int `[n]` predicted class ids.
      classes: names by id.

    Returns:
      `n`, `accuracy`, and `macro_precision`, `macro_recall`, `macro_f1` as published (averaged over the classes that occur in
      labels or predictions, an undefined class score counting 0); `per_class` sensitivity and specificity, one class against
      the rest, `nan` where there is nothing to divide by; `confusion`, rows true, columns predicted.
    """
    confusion = sk.confusion_matrix(labels, predictions, labels=range(len(classes)))  # k k
    precision, recall, f1, _ = sk.precision_recall_fscore_support(
        labels,
        predictions,
        average="macro",
        zero_division=0,  # pyright: ignore[reportArgumentType]; annotated as a string only
    )
    per_class = {}
    for index, name in enumerate(classes):
        hit = confusion[index, index]
        actual, called = confusion[index].sum(), confusion[:, index].sum()
        rest = confusion.sum() - actual
        per_class[name] = {
            "n": int(actual),
            "sensitivity": float(hit / actual) if actual else float("nan"),
            "specificity": float((rest - (called - hit)) / rest) if rest else float("nan"),
        }
    return {
        "n": len(labels),
        "accuracy": float(np.mean(labels == predictions)),
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "per_class": per_class,
        "confusion": confusion.tolist(),
    }
