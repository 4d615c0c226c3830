"""Recipes: a config file and the changes that the command line makes to it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

import configs
from scoliojax.build import Config
from scoliojax.errors import RunError


def read_recipe(file: str, changes: Sequence[str] = ()) -> Config:
    """The config of a recipe, `path` or `path:variant`, with `--config.KEY=VALUE` changes.

    A path such as `configs/x.py` that does not exist here is looked up among the installed recipes. Raises `RunError` for a
    recipe that does not load, and for an unknown key or a wrong value; the message lists the known keys.
    """
    path, colon, variant = file.partition(":")
    installed = Path(configs.__file__).parent.parent / path
    if not Path(path).exists() and path.startswith("configs/") and installed.exists():
        path = installed

    def define(values: flags.FlagValues, argv: list[str]) -> flags.FlagHolder:
        return config_flags.DEFINE_config_file("config", None, flag_values=values, sys_argv=argv)

    return _parse(define, [f"--config={path}{colon}{variant}"], list(changes))


def change_config(config: Config, changes: Sequence[str]) -> Config:
    """A recorded config with `--config.KEY=VALUE` changes; errors as in `read_recipe`."""

    def define(values: flags.FlagValues, argv: list[str]) -> flags.FlagHolder:
        return config_flags.DEFINE_config_dict("config", ConfigDict(config), flag_values=values, sys_argv=argv)

    return _parse(define, [], list(changes))


def _parse(define: Callable[[flags.FlagValues, list[str]], flags.FlagHolder], given: list[str], changes: list[str]) -> Config:
    """Parse with a new set of flags, so that a process can run several commands."""
    values, argv = flags.FlagValues(), ["scoliojax", *given, *changes]
    try:
        holder = define(values, argv)
        stray = values(argv)[1:]
        config = holder.value
    except (flags.Error, AttributeError, KeyError, OSError, TypeError, ValueError) as error:
        unknown = None
        if changes and isinstance(error, (AttributeError, KeyError)):
            unknown = _unknown_key(changes, _parse(define, given, []))
        raise RunError(unknown or [line for line in str(error).splitlines() if line.strip()][-1].strip()) from None
    if stray:
        raise RunError(f"unexpected argument {stray[0]!r}")
    return config


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
