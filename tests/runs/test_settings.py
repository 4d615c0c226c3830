"""What a recipe and a config may say: everything else is one line, before anything is prepared or written."""

import json
import math
import os

import pytest
from ml_collections import ConfigDict

from configs import sconet_mt
from scoliojax.errors import RunError
from scoliojax.runs import settings
from scoliojax.runs.directory import flatten
from scoliojax.runs.recipe import read_recipe
from tests.conftest import assert_one_clear_error, run_here

HEAD = "from configs import sconet_mt\n"
RECIPES: dict[str, tuple[str | bytes, tuple[str, ...]]] = {
    "empty": ("", ("has no function get_config",)),
    "syntax": ("def get_config(:\n", ("line 1", "SyntaxError")),
    "indentation": (f"{HEAD}def get_config():\nreturn 3\n", ("line 3", "IndentationError")),
    "missing import": ("import numpi\n", ("line 1", "No module named 'numpi'")),
    "missing name": ("from configs import sconet_xl\n", ("line 1", "sconet_xl")),
    "no get_config": ("config = 3\n", ("has no function get_config",)),
    "get_config is no function": ("get_config = 3\n", ("has no function get_config",)),
    "takes more": ("def get_config(a, b):\n    return a\n", ("TypeError",)),
    "returns nothing": ("def get_config():\n    pass\n", ("returns no ConfigDict but NoneType",)),
    "returns a dict": ("def get_config():\n    return {}\n", ("returns no ConfigDict but dict",)),
    "returns too little": (
        f"{HEAD}from ml_collections import ConfigDict\ndef get_config():\n    return ConfigDict()\n",
        ("the config has no ",),
    ),
    "raises": ("def get_config():\n    return 1 / 0\n", ("line 2", "ZeroDivisionError")),
    "raises far away": ("import json\n\njson.loads('{')\n", ("line 3", "JSONDecodeError")),
    "raises what is none": ("class E(Exception):\n    def __str__(self): return ''\nraise E\n", ("line 3", "E")),
    "exits": ("import sys\nsys.exit(3)\n", ("line 2", "SystemExit")),
    "exits well": ("raise SystemExit\n", ("line 1", "SystemExit")),
    "raises no Exception": ("raise GeneratorExit\n", ("line 1", "GeneratorExit")),
    "raises an own BaseException": ("class E(BaseException): pass\nraise E('why')\n", ("line 2", "E: why")),
    "raises what has no text": ("class E(Exception):\n    def __str__(self): return 1 / 0\nraise E\n", ("line 3", "E")),
    "recursion": ("def get_config():\n    return get_config()\n", ("line 2", "RecursionError")),
    "JSON": (json.dumps(sconet_mt.get_config().to_dict()), ("is no Python file, but JSON",)),
    "JSON with null": ('{"a": null}', ("is no Python file",)),
    "binary": (bytes(range(256)), ("is no recipe that can be read",)),
    "zeros": (b"\0" * 100, ("is no recipe that can be read", "null bytes")),
    "another encoding": ("title = 'Größe'\n".encode("latin-1"), ("is no recipe that can be read",)),
    "nested": ("(" * 10_000, ("is no recipe that can be read",)),
    "a key that nothing reads": (
        f"{HEAD}def get_config():\n    config = sconet_mt.get_config()\n    config.data.max_frames = 3\n    return config\n",
        ("nothing reads data.max_frames",),
    ),
    "another type": (
        f"{HEAD}def get_config():\n    config = sconet_mt.get_config().to_dict()\n    config['train']['steps'] = 'many'\n"
        "    from ml_collections import ConfigDict\n    return ConfigDict(config)\n",
        ("train.steps='many' must be a whole number",),
    ),
    "a section that is none": (
        f"{HEAD}def get_config():\n    config = sconet_mt.get_config('quickstart').to_dict()\n    config['train'] = 3\n"
        "    from ml_collections import ConfigDict\n    return ConfigDict(config)\n",
        ("train",),
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore")  # of Python, about what stands in a recipe
@pytest.mark.parametrize("kind", RECIPES)
def test_a_recipe_that_does_not_load_gets_one_line_with_its_place(kind, tmp_path):
    content, words = RECIPES[kind]
    path = tmp_path / "recipe.py"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = run_here("scoliojax.main", f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert_one_clear_error(result, "recipe.py", *words)
    assert sorted(os.listdir(tmp_path)) == ["recipe.py"]


@pytest.mark.parametrize("state", ["folder", "pipe", "missing", "below a file", "name too long", "no name", "a home of nobody"])
def test_a_recipe_that_is_no_file_gets_one_line(state, tmp_path):
    path = str(tmp_path / "recipe.py")
    if state == "folder":
        os.mkdir(path)
    elif state == "pipe":
        os.mkfifo(path)
    elif state == "below a file":
        (tmp_path / "file").write_text("", encoding="utf-8")
        path = str(tmp_path / "file" / "recipe.py")
    elif state != "missing":
        path = {"name too long": "x" * 5000, "no name": ":quickstart", "a home of nobody": "~nobody-there/x.py"}[state]
    result = run_here("scoliojax.main", f"--config={path}", f"--workdir={tmp_path / 'run'}")
    assert result.returncode == 2
    assert_one_clear_error(result, "--config")


WRONG = (None, True, "text", -1, 10**400, -(10**400), 1.5, math.nan, math.inf, -math.inf, (), (1, "x"), (1.5,), [None], {},
         {"a": 1})  # fmt: skip
LEAVES = flatten(sconet_mt.get_config("quickstart").to_dict())


@pytest.mark.parametrize("key", LEAVES)
def test_a_value_that_cannot_be_is_named(key, tiny_config):
    refusals = []
    for value in WRONG:
        plain = tiny_config.to_dict()
        *sections, leaf = key.split(".")
        section = plain
        for name in sections:
            section = section[name]
        section[leaf] = value
        try:
            settings.check(ConfigDict(plain))
        except RunError as error:
            assert leaf in str(error), (value, error)
            assert len(str(error)) < 300
            refusals.append(value)
    kind = type(LEAVES[key])
    fitting = {bool: (True,), str: ("text",), int: (-1,), float: (-1, 1.5), list: ((),)}[kind]
    assert not [value for value in WRONG if value not in refusals and value not in fitting and value == value]
    assert len(refusals) >= len(WRONG) - len(fitting)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("data.loader_threads=-1", "data.loader_threads=-1"),
        ("data.loader_threads=100000", "data.loader_threads=100000"),
        ("data.cache_gigabytes=nan", "data.cache_gigabytes=nan"),
        ("data.cache_gigabytes=inf", "data.cache_gigabytes=inf"),
        ("data.cache_gigabytes=-1", "data.cache_gigabytes=-1"),
        ("data.max_eval_frames=0", "data.max_eval_frames=0"),
        ("data.sequences_per_eval_batch=0", "data.sequences_per_eval_batch=0"),
        ("data.validation_fraction=nan", "data.validation_fraction=nan"),
        ("data.clips_per_subject=1000000000", "frames in a batch"),
        ("data.root=~nobody-there/x", "data.root='~nobody-there/x'"),
        ("data.augment.shift=11", "'data.augment': shift=11 must be a whole number of columns from 0"),
        ("data.augment.mirror=1.5", "'data.augment': mirror=1.5 must be a probability from 0, which turns it off, to 1"),
        ("data.augment.tilt=-1", "'data.augment': tilt=-1.0 must be degrees from 0, which turns it off, to 45"),
        ("data.augment.dilation=0.9", "dilation=0.9 and erosion="),
        ("data.augment.blur=1", "the config has no 'blur' here"),
        ("data.modality=video", "data.modality='video' is unknown; known are silhouettes, skeletons"),
        ("model.name=drf", "model.name='drf' reads poses, and data.modality='silhouettes' has none"),
        ("data.maps.align=both", "'data.maps': align='both' is unknown; give 'each' or 'shared'"),
        ("data.maps.sigma=0", "'data.maps': sigma=0.0 pixels is no width of a limb"),
        ("data.balanced=maybe", "balanced"),
        ("loss.triplet_label=person", "loss.triplet_label='person' must be"),
        ("loss.weights_by_class=(1.0,2.0)", "loss.weights_by_class=(1.0, 2.0) must have a number for each of negative"),
        ("loss.weights_by_class=(0.0,1.0,1.0)", "loss.weights_by_class=(0.0, 1.0, 1.0) must be positive and finite numbers"),
        ("loss.margin=nan", "loss.margin=nan"),
        ("loss.scale=-16", "loss.scale=-16"),
        ("optimizer.weight_decay=nan", "optimizer.weight_decay=nan"),
        ("optimizer.learning_rate=inf", "optimizer.learning_rate=inf"),
        ("optimizer.milestones=(1,99999999999)", "optimizer.milestones"),
        ("model.channels=(2,3,4,99999)", "model.channels"),
        ("train.steps=99999999999", "train.steps=99999999999"),
        ("train.steps=" + "9" * 400, "train.steps"),
        ("seed=-1", "seed=-1"),
        ("seed=9223372036854775808", "at most 9223372036854775807"),
        ("optimizer.learning_rate=1e-40", "at least 1e-30 and at most 1e+30"),
    ],
)
def test_a_mistake_on_the_command_line_is_found_before_data_are_prepared(change, words, tmp_path, monkeypatch):
    monkeypatch.setattr("scoliojax.build.build_data", lambda *_, **__: pytest.fail("data are prepared"))
    recipe = "--config=configs/sconet_mt.py:quickstart"
    result = run_here("scoliojax.main", recipe, f"--workdir={tmp_path / 'run'}", f"--config.{change}")
    assert result.returncode == 2
    assert_one_clear_error(result, words)
    assert not (tmp_path / "run").exists()


def test_of_a_key_given_twice_the_last_counts():
    changes = ["--config.model.channels=(2,3,4,5)", "--config.seed=1", "--config.model.channels=(6,7,8,9)", "--config.seed=2"]
    config = read_recipe("configs/sconet_mt.py", changes)
    assert (config.model.channels, config.seed) == ((6, 7, 8, 9), 2)
    assert read_recipe("configs/sconet_mt.py", changes[:3]).model.channels == (6, 7, 8, 9)


def test_a_recipe_of_the_users_own_may_lack_what_came_later(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        f"{HEAD}def get_config(variant=''):\n    config = sconet_mt.get_config(variant)\n    del config.data.cache_gigabytes\n"
        "    return config\n",
        encoding="utf-8",
    )
    assert read_recipe(f"{path}:quickstart").data.cache_gigabytes == 2.0
    assert read_recipe(str(path), ["--config.data.cache_gigabytes=1"]).train.steps == 20_000


def test_references_in_a_recipe_follow_what_they_refer_to(tmp_path):
    (tmp_path / "recipe.py").write_text(
        "from __future__ import annotations\n"
        "from dataclasses import dataclass\n"
        "from configs import sconet_mt\n"
        "from ml_collections import config_dict\n"
        "@dataclass\n"
        "class Mine:\n    seed: int = 3\n"
        "def get_config():\n"
        "    config = sconet_mt.get_config('quickstart')\n"
        "    config.train.checkpoint_every = config.train.get_ref('steps')\n"
        "    config.data.max_eval_frames = config.data.get_oneway_ref('frames_per_clip') * 3\n"
        "    config.seed = config_dict.placeholder(int)\n"
        "    return config\n",
        encoding="utf-8",
    )
    changes = ["--config.train.steps=4", "--config.data.frames_per_clip=7", "--config.seed=3"]
    config = read_recipe(str(tmp_path / "recipe.py"), changes)
    assert (config.train.checkpoint_every, config.data.max_eval_frames, config.seed) == (4, 21, 3)
    with pytest.raises(RunError, match="seed"):
        read_recipe(str(tmp_path / "recipe.py"), changes[:2])
