"""What each section of a screening report says, for every kind of answer; the results are made by hand."""

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from data_pipelines.schema import CLASSES
from scoliojax.screen.page import Pictures, render_report
from scoliojax.screen.wording import given_share, per_cent, quality, share, summary

DOT = "data:image/gif;base64,R0lGODlhAQABAAAAACw="
PICTURES = Pictures([(7 * number, DOT) for number in range(8)], DOT, DOT, DOT, DOT, DOT)


def reading(probabilities: tuple[float, float, float] = (0.2, 0.1, 0.7), threshold: float | None = 0.62) -> dict[str, Any]:
    positive_or_neutral = probabilities[1] + probabilities[2]
    return {
        "class": CLASSES[probabilities.index(max(probabilities))],
        "probabilities": dict(zip(CLASSES, probabilities, strict=True)),
        "positive_or_neutral": positive_or_neutral,
        "referred": None if threshold is None else positive_or_neutral >= threshold,
        "logits": dict.fromkeys(CLASSES, 0.0),
    }


def made(
    probabilities: tuple[float, float, float] = (0.2, 0.1, 0.7), threshold: float | None = 0.62, **changed
) -> dict[str, Any]:
    """The content of a `result.json`; `changed` keys of the answer, or, where the answer has none of the name, of the top."""
    point = {
        "threshold": threshold,
        "wanted_sensitivity": 0.9,
        "validation_sensitivity": 0.91,
        "validation_specificity": 0.92,
        "validation_subjects": 66,
    }
    answer = reading(probabilities, threshold) | {
        "calibrated": True,
        "operating_point": point,
        "fragile": False,
        "perturbed": [
            {"name": name} | reading(probabilities, threshold) for name in ("shifted left", "shifted right", "mirrored")
        ],
        "prediction_set": None,
        "prevalence": None,
    }
    answer |= {key: value for key, value in changed.items() if key in answer}
    window = reading(probabilities, threshold) | {"frames": 30}
    windows = [
        {"first_frame": 30 * place, "last_frame": 30 * place + 29, "start": 1.0 * place, "end": place + 0.97} | window
        for place in range(2)
    ]
    result = {
        "schema": "scoliojax.screening/2",
        "disclaimer": "Research software: not a medical device and not a diagnosis.",
        "synthetic": True,
        "input": {"name": "walk.mp4", "kind": "video", "sha256": 64 * "a"},
        "silhouettes": {
            "backend": "pose",
            "models": {},
            "person": None,
            "candidates": 1,
            "usable": 60,
            "used": 60,
            "frames": [],
        },
        "network": {
            "name": "ScoNet-MT",
            "run": "quickstart",
            "step": 360,
            "digest": 64 * "b",
            "modality": "silhouettes",
            "evaluation": None,
        },
        "quality": {
            "frames": 60,
            "bad_frames": 5,
            "damage": {"with holes": 3, "in pieces": 2, "torn": 0},
            "gait_cycles": 2.4,
            "frames_per_cycle": 25.0,
            "cadence": 143.7,
        },
        "people": None,
        "posture": None,
        "typicality": {"distance": 11.26, "usual": 14.0, "bound": 20.0, "frames": 60, "unlike": False, "beyond": False},
        "no_answer": [],
        "answer": answer,
        "windows": windows,
        "windows_agreeing": 2,
        "too_short": False,
        "strips": [],
        "flags": [],
        "beside": None,
        "kept_frames": False,
    }
    return result | {key: value for key, value in changed.items() if key in result}


class Shown(HTMLParser):
    """The text of a page as a reader has it, without its style, and the attributes of its elements."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self._words: list[str] = []
        self._style = False
        self.feed(page)
        self.text = " ".join("".join(self._words).split())

    def handle_starttag(self, tag, attrs):
        self._style = tag == "style"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        self._style = False
        self._words.append("" if tag in ("code", "strong") else " ")

    def handle_data(self, data):
        self._words.append("" if self._style else data)


def report(*arguments, pictures: Pictures = PICTURES, **changed) -> str:
    return Shown(render_report(made(*arguments, **changed), pictures)).text


NO_ANSWER = {
    "answer": None,
    "no_answer": [{"name": "still", "message": "nobody walks here"}, {"name": "unlike training", "message": "far away"}],
    "windows": [],
    "windows_agreeing": 0,
}
MIX = {
    "prevalence": 0.03,
    "positive_or_neutral": 0.07,
    "ppv": 0.213,
    "npv": 0.9961,
    "validation_share": 0.667,
    "measured_on": "test",
}
MEASURE = {
    "name": "shoulder line",
    "unit": "degrees",
    "about": "tilt; positive: left",
    "median": 3.2,
    "spread": 0.4,
    "strides": 3,
}
POSTURE = {
    "quality": {"frames": 90, "bad_frames": 1},
    "no_measures": [],
    "camera": {"tilt": 2.0, "error": 0.5, "known": True, "why_not": ""},
    "measures": [
        MEASURE | {"levelled": 1.2},
        MEASURE | {"name": "pelvis line", "median": None, "spread": None, "strides": 0, "levelled": None},
    ],
    "asymmetry": [{"entry": "ear: angle", "value": 0.1, "unit": "rad"}],
    "limits": ["No number is a Cobb angle, and none can be turned into one."],
}
SAYS: dict[str, tuple[tuple, dict[str, Any], list[str], list[str]]] = {
    "an answer": (
        (), {},
        ["5 of 60 silhouettes damaged (3 with holes, 2 in pieces); 2.4 gait cycles; cadence 144 steps a minute.", "frame 49",
         "positive or neutral (synthetic) 0.80 above the threshold of 0.62", "most probable class (synthetic) positive",
         "2 of 2 windows say positive", "Neutral is the borderline class of Scoliosis1K", "The operating point is a threshold",
         "A window is a piece of the walk", "like the 66 validation subjects; where fewer", "Give --prevalence",
         "No change of this table changes", "window (synthetic) seconds negative neutral positive", "0.0 to 1.0 0.20 0.10 0.70",
         "Distance 11.3. Green: usual, up to 14", "no further from them than a usual validation walk",
         "No quality problem was found"],
        ["No answer", "differ", "Fragile:", "Prediction set", "Which person", "refer", "too short", "another"],
    ),
    "no answer": (
        (), NO_ANSWER,
        ["No answer, because still: nobody walks here unlike training: far away", "silhouettes damaged", "Distance 11.3"],
        ["threshold of", "Probabilit", "probability", "strips", "window", "positive"],
    ),
    "class and decision differ above": (
        ((0.45, 0.25, 0.30), 0.5), {},
        ["Class and decision differ: negative is the most probable single class (0.45), yet positive and neutral together "
         "(0.55) are above the threshold of 0.50.", "at least 90 % of the positive or neutral validation subjects"],
        ["below the threshold"],
    ),
    "class and decision differ below": (
        ((0.40, 0.15, 0.45), 0.62), {},
        ["Class and decision differ: positive is the most probable single class (0.45), yet positive and neutral together "
         "(0.60) are below the threshold of 0.62."],
        ["above the threshold of"],
    ),
    "just at the threshold": (((0.3801, 0.1, 0.5199), 0.6195), {}, ["0.62 just above the threshold of 0.62"], ["Fragile"]),
    "fragile": (
        (), {"fragile": True, "perturbed": [{"name": "shifted left"} | reading((0.6, 0.1, 0.3))]},
        ["fragile", "Fragile: a change that a camera makes by chance", "as they are 0.80 above 0.62 positive",
         "shifted left (one pixel) 0.40 below 0.62 negative (another)"],
        ["No change of this table"],
    ),
    "posture": (
        (), {"posture": POSTURE},
        ["Posture, without a network", "1 of 90 poses are damaged", "shoulder line +3.2 +1.2 0.4 3 degrees",
         "pelvis line unknown unknown 0 degrees", "leans 2.0 degrees to the right", "(standard error 0.5 degrees)",
         "ear: angle 0.1 rad", "No number is a Cobb angle"],
        ["The horizon is not known", "Nothing was measured"],
    ),
    "no horizon": (
        (), {"posture": POSTURE | {"camera": {"tilt": None, "error": None, "known": False, "why_not": "too few strides"}}},
        ["The horizon is not known: too few strides. A tilted camera would tilt every line. Spread:"], ["leans"],
    ),
    "no posture": (
        (), {"posture": POSTURE | {"measures": [], "no_measures": [{"name": "still", "message": "nobody walks"}]}},
        ["Nothing was measured, because nobody walks (still)."], ["shoulder line", "Cobb angle, and none"],
    ),
    "one window": (
        (), {"too_short": True, "windows": made()["windows"][:1], "windows_agreeing": 1},
        ["same class over the walk (synthetic) too short to tell", "This walk has one only"], ["1 of 1", "0.0 to 1.0"],
    ),
    "several people": (
        (), {"people": {"taken": [2], "candidates": [
            {"number": 1, "frames": 80, "share": 0.891, "start": 0.0, "end": 2.7, "height": 301},
            {"number": 2, "frames": 60, "share": 0.05, "start": 0.5, "end": 2.5, "height": 322}]}},
        ["2 people were found; number 2 was taken.", "1 no 80 89 % 0.0 to 2.7 301", "2 yes 60 5 % 0.5 to 2.5 322"], [],
    ),
    "no operating point": (
        ((0.2, 0.1, 0.7), None), {},
        ["0.80 there is no operating point to compare it with", "no threshold"], ["The operating point is", "above the"],
    ),
    "never calibrated": (
        ((0.2, 0.1, 0.7), None), {"calibrated": False, "operating_point": None},
        ["not calibrated (synthetic)", "no calibrated probabilities: it is not known for which mix"], ["validation subjects"],
    ),
    "a prevalence": (
        (), {"prevalence": MIX},
        ["66 validation subjects, of whom 67 % are positive or neutral", "Where 3 % of the people are positive or neutral, "
         "this person's probability of positive or neutral is 0.07.", "21 % would be positive or neutral there (PPV, by sensi",
         "99.6 % would be negative there (NPV,"],
        ["Give --prevalence"],
    ),
    "a prevalence without a known mix": (
        (), {"prevalence": dict.fromkeys(MIX) | {"prevalence": 0.03}},
        ["cannot be told: it was not calibrated", "Predictive values cannot be told"], ["PPV"],
    ),
    "a prediction set": (
        (), {"prediction_set": {"coverage": 0.9, "classes": ["neutral", "positive"], "note": ""}},
        ["Neutral and positive cannot be excluded, the other class can, with a coverage of 90 % in every class",
         "(exchangeability)"], [],
    ),
    "all classes": (
        (), {"prediction_set": {"coverage": 0.9, "classes": list(CLASSES), "note": ""}}, ["No class can be excluded, with"], [],
    ),
    "no set": (
        (), {"prediction_set": {"coverage": 0.99, "classes": None, "note": "too few validation subjects"}},
        ["There is no set with a coverage of 99 %. Too few validation subjects."], ["(exchangeability)"],
    ),
    "unlike training": (
        (), {"typicality": made()["typicality"] | {"distance": 17.0, "unlike": True}},
        ["Hardly: it is unlike anything this network has learnt from"], ["beyond the end"],
    ),
    "far beyond training": (
        (), NO_ANSWER | {"typicality": made()["typicality"] | {"distance": 170.0, "unlike": True, "beyond": True}},
        ["No: it is so unlike anything", "(beyond the end of the scale)"], [],
    ),
    "nothing to measure distance by": ((), {"typicality": None}, ["How sure"], ["Distance"]),
    "flags": (
        (), {"flags": [{"name": "short", "frames": 31, "message": "a short walk"}]},
        ["what to know first frames what it means short 31 a short walk"], ["No quality problem"],
    ),
    "frames without times": (
        (),
        {"windows": [{key: one[key] for key in one if key not in ("start", "end")} for one in made()["windows"]]},
        ["window (synthetic) frames negative", "30 to 59 0.20"], ["to 1.0"],
    ),
    "an evaluation": (
        (), {"network": made()["network"] | {"evaluation": {
            "data": "walkers", "synthetic": True, "subjects": 75,
            "sensitivity": {"value": 0.9733, "low": 0.933, "high": 0.9944, "note": ""},
            "specificity": {"value": None, "low": None, "high": None, "note": "undefined: nobody is negative"}}}},
        ["On the 75 test subjects of walkers it had sensitivity 0.97 (0.93 to 0.99) and specificity undefined: nobody"],
        ["0.9733"],
    ),
    "no gait": (
        (), {"quality": made()["quality"] | {"bad_frames": 0, "damage": {"torn": 0}, "gait_cycles": None, "cadence": None}},
        ["None of 60 silhouettes damaged; no gait cycle found."], [],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", SAYS)
def test_the_report_says(kind):
    arguments, changed, words, absent = SAYS[kind]
    text = report(*arguments, **changed)
    for word in words:
        assert word in text, text
    for word in absent:
        assert word not in text, text
    assert "not a diagnosis" in text
    assert not re.search(r"\d\.\d{3}", text), "two digits, not four"


def test_the_quality_and_the_flags_come_before_the_answer():
    for changed, heading in (({}, "Answer (synthetic)"), (NO_ANSWER, "No answer (synthetic)")):
        text = report(flags=[{"name": "short", "frames": 31, "message": "a short walk"}], **changed)
        places = [text.index(word) for word in ("frame 0", "silhouettes damaged", "a short walk", heading)]
        assert places == sorted(places)


@pytest.mark.parametrize(
    "name", ["walk$1_{$.mp4", "走路.mp4", 250 * "x" + ".mp4", "a b&<i>'\".mp4", "{{ 7 }}.mp4", "\udcff.mp4"]
)
def test_any_name_of_a_file_is_shown_as_it_is(name):
    page = render_report(made(input={"name": name, "kind": "video", "sha256": ""}), PICTURES)
    assert f"Gait screening of {name}" in Shown(page).text
    assert page.count("<i>") == 0


@pytest.mark.parametrize("changed", [{}, NO_ANSWER, SAYS["several people"][1]])
def test_what_may_be_wider_than_the_page_scrolls_by_keys_and_has_a_name(changed):
    page = Shown(render_report(made(**changed), PICTURES))
    scrolling = [attributes for _, attributes in page.elements if attributes.get("class") in ("wide", "scroll")]
    assert scrolling
    assert all(one["tabindex"] == "0" and one["aria-label"] for one in scrolling)
    assert all(attributes["alt"] for tag, attributes in page.elements if tag == "img")


def test_one_sentence_sums_an_answer_up():
    assert summary(made()) == (
        "Positive or neutral with probability 0.80, above the threshold of 0.62; most probable class: positive, "
        "probability 0.70 (synthetic)."
    )
    assert summary(made(**NO_ANSWER)) == "No answer, because nobody walks here; far away."
    assert "there is no operating point to compare it with" in summary(made((0.2, 0.1, 0.7), None))


def test_shares_have_two_digits_and_are_never_certain():
    assert [share(value) for value in (0.0, 0.004, 0.005, 0.3333, 0.995, 0.996, 1.0)] == [
        "under 0.01", "under 0.01", "0.01", "0.33", "0.99", "over 0.99", "over 0.99",
    ]  # fmt: skip
    assert [per_cent(value) for value in (0.99999, 1e-6)] == ["over 99.9 %", "under 0.01 %"]
    assert [given_share(value) for value in (0.975, 0.125, 1e-7)] == ["97.5 %", "12.5 %", "1e-05 %"]
    assert [per_cent(value) for value in (0.003, 0.03, 0.5, 0.9, 0.996, 1.0)] == [
        "0.3 %",
        "3 %",
        "50 %",
        "90 %",
        "99.6 %",
        "100 %",
    ]
    few = quality(made(quality=made()["quality"] | {"gait_cycles": 1.2, "cadence": None}))
    assert few.endswith("1.2 gait cycles, fewer than the two that a judgement of gait needs; cadence unknown without times.")
