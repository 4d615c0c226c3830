"""Recipes: a config file and the changes that the command line makes to it."""

import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

import configs
from data_pipelines.files import read_regular
from scoliojax.build import Config
from scoliojax.errors import RunError, one_line
from scoliojax.runs import settings


def read_recipe(file: str, changes: Sequence[str] = ()) -> Config:
    """The config of a recipe, `path` or `path:variant`, with `--config.KEY=VALUE` changes, of a key the last one.

    A path such as `configs/x.py` that does not exist here is looked up among the installed recipes. Raises `RunError` for a
    recipe that does not load, with its line, for an unknown key, and for a value that cannot be; the message names the known
    keys.
    """
    path, colon, variant = (file, "", "") if os.path.isfile(file) else file.partition(":")
    here, installed = Path(os.path.expanduser(path)), Path(configs.__file__).parent.parent / path
    if not os.path.exists(here) and path.startswith("configs/") and os.path.exists(installed):
        here = installed
    config = change_config(_load(here, file, [variant] if colon else []), changes)
    try:
        settings.check(config)
    except RunError as error:
        raise RunError(str(error) if changes else f"--config={file}: {error}") from None
    return config


def change_config(config: Config, changes: Sequence[str]) -> Config:
    """A config with `--config.KEY=VALUE` changes, of a key given twice the last; `RunError` for an unknown or mistyped one."""
    changes = list({change.partition("=")[0]: change for change in changes}.values())  # ml_collections would join two tuples
    for change in changes:
        if not all(part.isidentifier() for part in change.removeprefix("--config.").partition("=")[0].split(".")):
            raise RunError(f"{change[:60]!r} names no key of the config; write --config.KEY=VALUE")
    for key in ("--config.data.root", "--config.data.partition"):
        if f"{key}=" in [change.strip() for change in changes]:
            raise RunError(f"{key}= is empty (is a variable not set?); give a value, or leave it out")
    values, argv = flags.FlagValues(), ["scoliojax", *changes]  # a new set of flags, so that a process can run several commands
    try:
        holder = config_flags.DEFINE_config_dict("config", ConfigDict(config), flag_values=values, sys_argv=argv)
        stray = values(argv)[1:]
    except (flags.Error, AttributeError, KeyError, OSError, OverflowError, TypeError, ValueError) as error:
        unknown = _unknown_key(changes, config) if isinstance(error, (AttributeError, KeyError)) else None
        raise RunError(unknown or [line for line in str(error).splitlines() if line.strip()][-1].strip()) from None
    if stray:
        raise RunError(f"unexpected argument {stray[0]!r}")
    return holder.value


def _load(path: Path, file: str, arguments: list[str]) -> Config:
    """What `get_config` of a recipe returns; `file`: the recipe as the user named it; `arguments`: its variant, if any."""
    recipe = ModuleType("recipe")
    recipe.__file__ = str(path)
    sys.modules[recipe.__name__] = recipe  # where dataclasses and pickles of the recipe's look for its names
    try:
        content = read_regular(path)
        if content.lstrip()[:1] == b"{":
            raise RunError(f"--config={file} is no Python file, but JSON or the like; give a recipe, e.g. configs/sconet_mt.py")
        exec(compile(content, path, "exec"), vars(recipe))
        if not callable(get_config := vars(recipe).get("get_config")):
            raise RunError(f"--config={file} has no function get_config that returns a ConfigDict; see configs/sconet_mt.py")
        config: Any = get_config(*arguments)
        if not isinstance(config, ConfigDict):
            kind = type(config).__name__
            raise RunError(f"--config={file}: get_config returns no ConfigDict but {kind}; see configs/sconet_mt.py")
        settings.refuse_unknown(config)
        with config.unlocked():
            settings.complete(config)
        return config
    except RunError as error:
        text = str(error)
        raise RunError(text if text.startswith("--config") else f"--config={file}: {text}") from None
    except (FileNotFoundError, NotADirectoryError):
        raise RunError(f"--config={file} does not exist; give a recipe, e.g. configs/sconet_mt.py") from None
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a recipe is a program: it can raise anything
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
        lines += [error.lineno] if isinstance(error, SyntaxError) and error.filename == str(path) else []
        where = f", line {lines[-1]}" if lines and lines[-1] else ""
        what = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        raise RunError(
            f"--config={file} is no recipe that can be read{where} ({type(error).__name__}: {what}); correct it, or give "
            "another, e.g. configs/sconet_mt.py"
        ) from None


def _unknown_key(changes: list[str], config: Config) -> str | None:
    """A message about the first change with an unknown key, with the known keys; None where all keys are known."""
    for change in changes:
        section = config
        for key in change.removeprefix("--config.").split("=")[0].split("."):
            if not isinstance(section, ConfigDict) or key not in section:
                known = ", ".join(section.keys()) if isinstance(section, ConfigDict) else "nothing below it"
                return f"{change}: the config has no {key!r} here; it has {known}"
            section = section[key]
    return None
