"""Partition files (JSON), which people write by hand or let a spreadsheet change."""

import json
import math
import os
import re
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple, NoReturn

from data_pipelines.schema import DataError, abbreviate
from data_pipelines.tables import Ids, Problem
from data_pipelines.texts import plain, shown, text_of

EXPECTED = 'expected {"TRAIN_SET": [ids], "TEST_SET": [ids]}'
FIELDS = ("TRAIN_SET", "TEST_SET")  # lists of ids in a partition file


class PartitionFile(NamedTuple):
    """Content of a partition file; the ids as the data have them."""

    train: list[str]
    test: list[str]
    unused: list[str]  # keys of the file that nothing reads


def read_partition(
    path: str | os.PathLike[str], field: str, sequences: Iterable[str], report: Callable[[str], None] | None = None
) -> PartitionFile:
    """A partition file `{"TRAIN_SET": [ids], "TEST_SET": [ids]}`; ids are those of `sequences` where they are meant.

    `report` receives a line where the encoding was a guess (None: standard error).
    Raises `DataError` naming `field`, the file, the list and the value; `FileNotFoundError` where there is no file.
    """
    name = f"{field}={os.fspath(path)!r}"
    text = text_of(path, field, "JSON", report).rstrip()
    try:
        content = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
        return _partition_of(content, Ids(sequences))
    except RecursionError:
        raise DataError(f"{name} is nested too deep to be a partition file; {EXPECTED}") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{name}, line {error.lineno}, column {error.colno}: not JSON ({error.msg}); {EXPECTED}") from None
    except ValueError:  # the decoder's only other one
        raise DataError(f"{name} holds a number of thousands of digits, which is no id; {EXPECTED}") from None
    except Problem as error:
        raise DataError(f"{name}{error}") from None


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for key, value in pairs:
        if key in content:
            raise Problem(f" names {shown(key)} twice; keep one of the two")
        content[key] = value
    return content


def _refuse_constant(text: str) -> NoReturn:
    raise Problem(f" holds {text}, which is no id; {EXPECTED}")


def _partition_of(content: Any, ids: Ids) -> PartitionFile:
    if not isinstance(content, dict):
        raise Problem(f" is not a partition file (it holds {_named(content)}); {EXPECTED}")
    keys: dict[str, str] = {}
    for key in content:
        meant = re.sub(r"[\s-]+", "_", plain(key)).upper()
        if meant in FIELDS and meant in keys:
            raise Problem(f" names {meant} twice, as {shown(keys[meant])} and {shown(key)}; keep one of the two")
        keys[meant] = key
    if missing := [field for field in FIELDS if field not in keys]:
        raise Problem(
            f" is not a partition file (no {missing[0]}, but {abbreviate(map(shown, content), 3) or 'nothing'}); {EXPECTED}"
        )
    parts = [_ids_of(field, content[keys[field]], ids) for field in FIELDS]
    return PartitionFile(*parts, unused=[key for meant, key in keys.items() if meant not in FIELDS])


def _ids_of(field: str, items: Any, ids: Ids) -> list[str]:
    if not isinstance(items, list):
        raise Problem(f": {field} is {_named(items)}; {EXPECTED}")
    found: list[str] = []
    places: dict[str, int] = {}
    for place, item in enumerate(items):
        whole = (isinstance(item, int) and not isinstance(item, bool)) or (isinstance(item, float) and item.is_integer())
        if not whole and not (isinstance(item, str) and plain(item)):
            raise Problem(f": {field}[{place}] is {_named(item)}; write the id of a sequence there, or delete it")
        try:
            sequence = ids.find(item, f"{field}[{place}]")
        except Problem as error:
            raise Problem(f": {error}") from None
        if sequence in places:
            raise Problem(f": {field} lists {sequence} more than once ({field}[{places[sequence]}] and [{place}]); delete one")
        places[sequence] = place
        found.append(sequence)
    if not found:
        raise Problem(f": {field} is empty; list the ids of its sequences")
    return found


def _named(value: Any) -> str:
    """What a JSON value is, for a message."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return "a number beyond all bounds" if value in (math.inf, -math.inf) else json.dumps(value, ensure_ascii=False)[:60]
