"""Whatever becomes of a file that a command reads back: one line and status 2, or success, and nothing is lost.

`SCOLIOJAX_TESTS=thorough` makes 2,000 mutations, otherwise a few in each session.
"""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from configs import sconet_mt
from data_pipelines.sources import prepare
from scoliojax.runs.training import run_training
from tests.conftest import THOROUGH, run_here, write_tree

EXAMPLES = int(os.environ.get("SCOLIOJAX_MUTATIONS", 2000 if THOROUGH else 100))
LONGEST = 120  # seconds of one command, on a machine that has other work, too

VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20),
    st.sampled_from([10**400, -(10**30), 2**31, 2**63, 1e308, 0.0, -1.5, 1e-320, float("nan"), float("inf"), -float("inf")]),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["", "synthetic", "sconet", "~nobody/x", "1:1:8", "/", ".", "\0", "x" * 5000, "\u0663", "1:0:1"]),
    st.lists(st.integers(-2, 70), max_size=5),
    st.lists(st.text(max_size=3), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=3),
    st.just({"a.b": 1, "items": 2}),
)
CONTENTS = [
    *(b"", b"\n", b"null", b"3", b'"text"', b"[]", b"{}", b"[{}]", b"true", b"NaN", b"-", b"{", b"9" * 5000),
    *(b'{"a": 1, "a": 2}', b"[" * 10_000, b'{"a":' * 10_000, b"[" * 900 + b"]" * 900),
    *(b"\0" * 40, b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"<html></html>"),
    *(b"import os", b"raise SystemExit(3)", b"1 / 0", b"def get_config(): return {}"),
    *(b"sequence,subject\n", b"a;b\n1;2\n"),
]


class File(NamedTuple):
    path: str  # from the folder of the fuzz on
    command: tuple[str, ...]  # that reads it
    rare: bool = False  # a command that takes seconds


EVALUATE = ("scoliojax.main", "--mode=eval", "--workdir={folder}/run")
CARD = ("scoliojax.interop.opengait", "export", "--workdir={folder}/run", "--output={folder}/out.pt")
PREPARE = ("data_pipelines.prepare", "--input={folder}/tree", "--output={folder}/new")
FILES = (
    File("run/config.json", EVALUATE),
    File("run/data.json", EVALUATE),
    File("run/calibration/step-000002.json", EVALUATE),
    File("run/environment.json", CARD),
    File("run/learning_rates.json", CARD),
    File("run/evaluation/test-step-000002/metrics.json", CARD),
    File("run/metrics.jsonl", ("scoliojax.main", "--workdir={folder}/run", "--config.train.steps=3"), True),
    File("run/environment.json", ("scoliojax.main", "--workdir={folder}/run", "--config.train.steps=3"), True),
    File("recipe.py", (*EVALUATE, "--config={folder}/recipe.py")),
    File("partition.json", EVALUATE),
    File("prepared/scoliosis1k/1.0.0/metadata.json", EVALUATE),
    File("subjects.csv", (*PREPARE, "--subjects={folder}/subjects.csv")),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory, request) -> Path:
    """A folder with a run on a prepared tree, its recipe, its partition and a list of its subjects."""
    pytest.importorskip("torch")  # for the command that reads what a model card says
    folder = tmp_path_factory.mktemp("fuzz") / "whole"
    write_tree(folder / "tree", per_class=4, frames=4)
    prepare(str(folder / "tree"), folder / "prepared", report=lambda line: None)
    ids = [f"{number:05d}" for number in range(12)]
    (folder / "partition.json").write_text(json.dumps({"TRAIN_SET": ids[:9], "TEST_SET": ids[9:]}), encoding="utf-8")
    subjects = "".join(f"{one},person {int(one) // 3}\n" for one in ids)
    (folder / "subjects.csv").write_text(f"sequence,subject\n{subjects}", encoding="utf-8")
    config = sconet_mt.get_config("quickstart")
    config.update_from_flattened_dict({
        "data.name": "scoliosis1k",
        "data.root": str(folder / "prepared"),
        "data.partition": str(folder / "partition.json"),
        "data.validation_fraction": 0.34,
        "data.subjects_per_batch": 2,
        "data.clips_per_subject": 2,
        "data.frames_per_clip": 3,
        "data.sequences_per_eval_batch": 1,
        "data.loader_threads": 1,
        "model.channels": (2, 3, 4, 5),
        "model.embedding_dim": 4,
        "train.steps": 2,
        "train.log_every": 1,
        "train.checkpoint_every": 1,
        "train.eval_every": 0,
    })  # fmt: skip
    run_training(config, folder / "run")
    lines = ["from ml_collections import ConfigDict", "", "", "def get_config():", "    config = ConfigDict()"]
    for section, values in config.to_dict().items():
        for key, value in values.items() if isinstance(values, dict) else [(None, values)]:
            shown = f"ConfigDict({value!r})" if isinstance(value, dict) else repr(value)
            lines += [f"    config.{section} = ConfigDict()"] * (key == next(iter(values)) if key else False)
            lines.append(f"    config.{section}.{key} = {shown}" if key else f"    config.{section} = {shown}")
    (folder / "recipe.py").write_text("\n".join([*lines, "    return config", ""]), encoding="utf-8")
    recorded = (
        folder / "run" / "config.json"
    )  # with relative paths, as older versions wrote them: so a copy reads its own files
    moved = recorded.read_text(encoding="utf-8").replace(f"{folder}/", "../")
    recorded.write_text(moved, encoding="utf-8")
    (folder / "run" / "learning_rates.json").write_text('[{"step": 1, "old": 0.2, "new": 0.1}]', encoding="utf-8")
    return folder


def nodes(content: Any, way: tuple = ()) -> list[tuple]:
    """The way to everything within a JSON document."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [way, *(found for key, value in pairs for found in nodes(value, (*way, key)))]


def rewritten(draw: Callable, text: str) -> bytes:
    """A JSON document in which one node is another value, missing, renamed or there twice."""
    content = json.loads(text)
    *ways, leaf = draw(st.sampled_from(nodes(content)[1:]))
    section = content
    for key in ways:
        section = section[key]
    how = draw(st.sampled_from(["another", "missing", "renamed", "twice"]))
    if how == "another":
        section[leaf] = draw(VALUES)
    elif how == "missing" or isinstance(section, list):
        del section[leaf]
    elif how == "renamed":
        section[draw(st.text(max_size=6))] = section.pop(leaf)
    else:
        shown = json.dumps(leaf)
        return json.dumps(content).replace(f"{shown}:", f"{shown}: {json.dumps(draw(VALUES))}, {shown}:", 1).encode()
    return json.dumps(content).encode()


def edited(draw: Callable, text: str) -> bytes:
    """A text with one line another, twice, missing, or with one word another."""
    lines = text.splitlines(keepends=True)
    place = draw(st.integers(0, len(lines) - 1))
    how = draw(st.sampled_from(["word", "missing", "twice", "short", "value"]))
    if how == "missing":
        del lines[place]
    elif how == "twice":
        lines.insert(place, lines[place])
    elif how == "short":
        lines[place] = lines[place][: draw(st.integers(0, len(lines[place])))]
    elif how == "value":
        lines[place] = lines[place].rpartition("=")[0] + f"= {draw(VALUES)!r}\n"
    else:
        words = lines[place].split(" ")
        words[draw(st.integers(0, len(words) - 1))] = draw(st.text(max_size=6))
        lines[place] = " ".join(words)
    return "".join(lines).encode("utf-8", "surrogatepass")


def mutate(draw: Callable, path: Path) -> None:
    """Make something else of a file."""
    content, text = path.read_bytes(), path.read_text(encoding="utf-8")
    ways = ["structure", "structure", "structure", "bytes", "cut", "other", "encoded", "node"]
    how = draw(st.sampled_from(ways))
    if how == "structure":
        path.write_bytes(rewritten(draw, text) if path.suffix == ".json" else edited(draw, text))
    elif how == "bytes":
        place = draw(st.integers(0, len(content) - 1))
        path.write_bytes(content[:place] + draw(st.binary(max_size=3)) + content[place + 1 :])
    elif how == "cut":
        path.write_bytes(content[: draw(st.integers(0, len(content) - 1))])
    elif how == "other":
        path.write_bytes(draw(st.sampled_from(CONTENTS)))
    elif how == "encoded":
        path.write_bytes(text.encode(draw(st.sampled_from(["utf-16", "utf-32", "utf-8-sig", "cp037"]))))
    else:
        path.unlink()
        kind = draw(st.sampled_from(["folder", "missing", "loop", "pipe", "closed"]))
        if kind == "folder":
            path.mkdir()
        elif kind == "loop":
            path.symlink_to(path.name)
        elif kind == "pipe":
            os.mkfifo(path)
        elif kind == "closed":
            path.write_bytes(content)
            path.chmod(0)


def contents(folder: Path) -> dict[str, bytes | str]:
    """Everything below a folder."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        regular = path.is_file() and not path.is_symlink() and os.access(path, os.R_OK)
        found[str(path.relative_to(folder))] = path.read_bytes() if regular else "no file"
    return found


def in_time(*command: str):
    def late(*_):
        raise AssertionError(f"it takes longer than {LONGEST} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(LONGEST)
    try:
        return run_here(*command)
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # of Python, about what stands in a recipe
def test_no_file_ends_a_command_in_a_traceback(whole, tmp_path_factory):
    statuses: dict[int, int] = {}

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        derandomize=EXAMPLES < 1000,
        phases=[Phase.generate],  # a smaller example would take as long again
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def fuzz(data: st.DataObject) -> None:
        folder = tmp_path_factory.mktemp("mutated") / "copy"
        shutil.copytree(whole, folder)
        often = [file for file in FILES if not file.rare]
        file = data.draw(st.sampled_from(often * 6 + [file for file in FILES if file.rare]))
        mutate(data.draw, folder / file.path)
        before = contents(folder)
        module, *arguments = (word.format(folder=folder) for word in file.command)
        result = in_time(module, *arguments)
        told = f"{file}: {result.stderr[-1000:]}"
        assert result.returncode in (0, 2), told
        statuses[result.returncode] = statuses.get(result.returncode, 0) + 1
        lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
        assert len(lines) == (result.returncode == 2), told
        assert "Traceback" not in result.stderr, told
        after = contents(folder)
        assert not [name for name in after if "unfinished" in name or ".replaced" in name], told
        if result.returncode:
            changed = [name for name in after.keys() | before.keys() if after.get(name) != before.get(name)]
            assert not changed, f"{told}: {changed}"
        kept = [name for name in before if "checkpoints/" in name and not file.rare]
        assert all(after[name] == before[name] for name in kept), told
        shutil.rmtree(folder)

    fuzz()
    print(f"statuses of {EXAMPLES} mutations: {statuses}")
    assert statuses[2] > statuses.get(0, 0) > 0
