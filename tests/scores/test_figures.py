"""What figures may not hide: whose data they show, what is undefined, and that they can be made again."""

from types import SimpleNamespace

import numpy as np

from scoliojax.scores import figures
from scoliojax.scores.bootstrap import Estimate
from scoliojax.scores.metrics import Scored, Scorer

CLASSES = ("negative", "neutral", "positive")
UNDEFINED = Estimate(None, None, None, "undefined")


def scores_of(value: float) -> Estimate:
    return Estimate(value, None, None)


def metrics(labels, predictions) -> SimpleNamespace:
    counts = np.zeros((3, 3), int)
    np.add.at(counts, (labels, predictions), 1)
    scores = {f"{name}/{kind}": scores_of(0.5) for name in ("screening", *CLASSES) for kind in ("auroc", "average_precision")}
    return SimpleNamespace(
        confusion=counts.tolist(), classes=dict.fromkeys(CLASSES, 0), part="test", n=len(labels), synthetic=True,
        data="walkers", scores=scores | {"accuracy": scores_of(0.5)},
    )  # fmt: skip


def texts(figure) -> str:
    return " | ".join(one.get_text() for one in figure.findobj(lambda part: hasattr(part, "get_text")))


def test_the_same_figure_gives_the_same_bytes(tmp_path):
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        figures.save(figures.confusion(metrics([0, 1, 2], [0, 1, 1])), tmp_path / place, "confusion")
    for name in ("confusion.png", "confusion.svg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_class_without_sequences_has_no_rates():
    shown = texts(figures.confusion(metrics([0, 0, 1], [0, 2, 1])))
    assert "0\nof none" in shown
    assert "1\n50%" in shown
    assert "SYNTHETIC" in shown


def curves(labels) -> tuple[str, int]:
    """What the curves say, and how many bands they have."""
    labels = np.array(labels)
    probabilities = np.random.default_rng(0).dirichlet((1.0, 1.0, 1.0), len(labels))
    scorer = Scorer(Scored(labels, probabilities, probabilities.argmax(1)), CLASSES)
    names = [str(row) for row in range(len(labels))]
    figure = figures.roc_and_precision_recall(scorer, names, metrics(labels, probabilities.argmax(1)))
    return texts(figure), sum(len(axes.collections) for axes in figure.axes)


def test_a_question_with_one_side_absent_has_no_curve_and_a_rare_one_no_band():
    shown, bands = curves([0] * 20 + [2] * 20)
    assert "neutral: undefined, one side is absent" in shown
    assert bands == 4  # screening and positive, in both panels
    shown, bands = curves([0] * 20 + [1] * 20 + [2])  # a third of all draws have nobody positive
    assert "positive (0.500)" in shown
    assert bands == 4  # screening and neutral


def test_the_line_of_a_study_stops_where_a_seed_is_undefined():
    points = [("1:1:2", "sconet", {"x": scores_of(0.5)}), ("1:1:2", "sconet", {"x": scores_of(0.7)}),
              ("1:1:8", "sconet", {"x": scores_of(0.9)}), ("1:1:8", "sconet", {"x": UNDEFINED})]  # fmt: skip
    figure = figures.class_ratios(points, {"x": "score"}, [("1:1:8", {"x": 0.82})], True, "walkers")
    dots, line, star = figure.axes[0].lines
    assert sorted(dots.get_ydata()) == [0.5, 0.7, 0.9]
    assert line.get_ydata().tolist() == [0.6]
    assert star.get_ydata().tolist() == [0.82]
    assert "SYNTHETIC" in texts(figure)
