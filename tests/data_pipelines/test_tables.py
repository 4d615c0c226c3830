"""Partition and subjects files as people hand them in: read where they can be read in one way only, else refused by name."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_pipelines.partitions import read_partition
from data_pipelines.schema import DataError, class_id
from data_pipelines.sources import open_prepared, prepare, prepared_folder
from data_pipelines.splits import make_partition
from data_pipelines.tables import read_subjects
from data_pipelines.texts import plain
from tests.conftest import assert_one_clear_error, make_set, run_here, write_tree

IDS = [f"{number:05d}" for number in range(8)]
PEOPLE = {"00000": "anna", "00001": "anna", "00007": "Zoë"}
PLAIN = "sequence,subject\n00000,anna\n00001,anna\n00007,Zoë\n"


def workbook(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")


def write(path: Path, content) -> Path:
    """Text as UTF-8, bytes as they are, or whatever a function does."""
    if callable(content):
        content(path)
    else:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


SUBJECTS_READ = {
    "as documented": PLAIN,
    "byte order mark": PLAIN.encode("utf-8-sig"),
    "UTF-16 with a mark": PLAIN.encode("utf-16"),
    "UTF-16 without, low byte first": PLAIN.encode("utf-16-le"),
    "UTF-16 without, high byte first": PLAIN.encode("utf-16-be"),
    "UTF-32": PLAIN.encode("utf-32"),
    "Latin-1": PLAIN.encode("latin-1"),
    "accent apart from its letter": PLAIN.replace("ë", "e\u0308"),
    "semicolons": PLAIN.replace(",", ";"),
    "semicolons, named in Excel's first line": "sep=;\r\n" + PLAIN.replace(",", ";"),
    "tabs": PLAIN.replace(",", "\t"),
    "bars": PLAIN.replace(",", "|"),
    "lines of Windows": PLAIN.replace("\n", "\r\n"),
    "lines of an old Mac": PLAIN.replace("\n", "\r"),
    "no end of line": PLAIN.strip(),
    "Ctrl-Z of DOS": PLAIN + "\x1a",
    "header in other case, with blanks": PLAIN.replace("sequence,subject", " SEQUENCE , Subject "),
    "columns in another order": "subject,sequence\nanna,00000\nanna,00001\nZoë,00007\n",
    "blanks around values": "sequence,subject\n 00000 , anna\n00001\t,anna  \n\u00a000007,Zoë\u00a0\n",
    "quoted": 'sequence,subject\n"00000","anna"\n"00001" , "anna"\n"00007","Zoë"\n',
    "quoted for a spreadsheet": 'sequence,subject\n"=""00000""",anna\n\'00001,anna\n="00007",Zoë\n',
    "without leading zeros": "sequence,subject\n0,anna\n1,anna\n7,Zoë\n",
    "numbers with a point": "sequence;subject\n0.0;anna\n1,0;anna\n7.00;Zoë\n",
    "pandas' index": ",sequence,subject\n0,00000,anna\n1,00001,anna\n2,00007,Zoë\n",
    "empty lines and columns": ";;;\nsequence;subject;;\n00000;anna;;\n;;;\n\n00001;anna;;\n00007;Zoë;;\n;;;\n",
}


@pytest.mark.parametrize("kind", SUBJECTS_READ)
def test_subjects_are_read_in_any_clothes(kind, tmp_path):
    found = read_subjects(write(tmp_path / "subjects.csv", SUBJECTS_READ[kind]), IDS)
    assert found == PEOPLE
    assert found.traits == {}
    assert found.settings() == str(sorted(PEOPLE.items())), "the fingerprint of sets that were prepared before"


def names(*people: str) -> str:
    return "sequence,subject,note\n" + "".join(f"{number:05d},{name},x\n" for number, name in enumerate(people))


CHINESE = ("张三", "李雷", "王小明", "陈建国")
JAPANESE = ("田中花子", "マリー", "さくら", "佐藤")
GUESSED = {  # a file in another encoding: how it is written, what is read as what, and the encoding that is named
    "Chinese": (names(*CHINESE), "gbk", "Chinese (GB 18030)"),
    "Chinese, rare signs among them": (names(*CHINESE, "周喆镕"), "gb18030", "Chinese (GB 18030)"),
    "Chinese, a name with a letter": (names(*CHINESE, "王A"), "gbk", "Chinese (GB 18030)"),
    "Japanese": (names(*JAPANESE), "shift_jis", "Japanese (Windows-932)"),
    "Japanese of Windows": (names("髙橋", *JAPANESE), "cp932", "Japanese (Windows-932)"),
    "German": (names("Müller", "Jürgen", "Groß", "Ämilie"), "cp1252", "Windows-1252"),
    "German, one letter": (names("anna", "Jörg"), "cp1252", "Windows-1252"),
    "French": (names("Créée", "Zoé", "Noël", "Anaïs"), "cp1252", "Windows-1252"),
    "Spanish in capitals": (names("NIÑO", "MUÑOZ", "PEÑA"), "cp1252", "Windows-1252"),
    "Danish": (names("Åse", "Bjørn", "Søren Ågård"), "cp1252", "Windows-1252"),
    "English of Word": (names("O\u2019Brien", "Anna\u2019s", "\u201cBo\u201d"), "cp1252", "Windows-1252"),
    "a dash": (names("Anna \u2013 Maria"), "cp1252", "Windows-1252"),
    "not even Windows-1252": (names("J\x81rg\xfc"), "latin-1", "Latin-1"),
}


@pytest.mark.parametrize("kind", GUESSED)
def test_other_encodings_are_guessed_where_that_is_clear_and_named(kind, tmp_path, capsys):
    text, encoding, named = GUESSED[kind]
    path = write(tmp_path / "subjects.csv", text.encode(encoding))
    lines: list[str] = []
    found = read_subjects(path, IDS, lines.append)
    assert [*found.values()] == [line.split(",")[1] for line in text.splitlines()[1:]]
    assert lines == [
        f"warning: --subjects={str(path)!r} is not UTF-8 and is read as {named}; save it as UTF-8 if names look wrong"
    ]
    read_subjects(path, IDS)
    assert capsys.readouterr().err.splitlines() == lines
    lines.clear()
    assert read_subjects(write(path, text), IDS, lines.append) == found
    assert lines == []


@pytest.mark.parametrize(
    "name", [*CHINESE, *JAPANESE, "周喆镕", "ﾀﾅｶ", "ガ", "髙橋", "﨑", "王A", "Ä", "李・雷", "김민수", "Иван"]
)
def test_a_name_in_any_script_stays_as_it_is(name):
    assert plain(name) == plain(f"\u3000{name} \u3000") == plain(f'="{name}"') == name


SUBJECTS_REFUSED = {
    "empty": ("", "is an empty file; give the CSV file"),
    "blank": (" \n\n", "is an empty file; give the CSV file"),
    "nothing but a mark": (b"\xff\xfe", "is an empty file"),
    "header alone": ("sequence,subject\n", "has a header and no line below it"),
    "no header": ("00000,anna\n", "line 1: no column 'sequence' and no column 'subject' in the header '00000', 'anna'"),
    "other header": ("id,person\n1,anna\n", "expected CSV columns sequence,subject"),
    "one column": ("sequence\n00000\n", "no column 'subject' in the header 'sequence'"),
    "column twice": ("sequence,subject,Subject\n0,a,b\n", "line 1: the header names 'subject' twice"),
    "column without a name": ("sequence,subject,\n0,anna,x\n", "line 2: 'x' stands in a column without a name"),
    "row too short": ("sequence,subject\n\n00000\n", "line 3: 1 field in '00000', and the header has 2"),
    "row too long": ("sequence,subject\n00000,Mustermann,Anna\n", "line 2: 3 fields in '00000,Mustermann,Anna'"),
    "empty subject": ("sequence,subject\n00000,anna\n00001, \n", "line 3: the subject is empty in '00001,'"),
    "empty sequence": ("sequence,subject\n,anna\n", "line 2: the sequence is empty in ',anna'"),
    "sequence twice": ("sequence,subject\n1,a\n2,a\n00001,b\n", "line 4: sequence '00001' stands in line 2 already"),
    "subject in two spellings": ("sequence,subject\n0,anna\n1,Anna\n", "line 3: subject 'Anna' is 'anna' in line 2"),
    "subject as number and text": ("sequence,subject\n0,7\n1,07\n", "line 3: subject '07' is '7' in line 2"),
    "nobody twice": (
        "sequence,subject\n0,NA\n1,anna\n2,NA\n",
        "line 4: subject 'NA' stands in line 2, too, and names nobody; write",
    ),
    "nobody, in other case": ("sequence,subject\n0,Unknown\n1,unknown\n", "'unknown' stands in line 2, too, and names nobody"),
    "errors of a sheet": ("sequence,subject\n0,#BEZUG!\n1,#BEZUG!\n", "'#BEZUG!' stands in line 2, too, and names nobody"),
    "not available": ("sequence,subject\n0,#N/A\n1,#N/A\n", "'#N/A' stands in line 2, too"),
    "dashes": ("sequence,subject\n0,-\n1,-\n", "'-' stands in line 2, too"),
    "the person above": ("sequence,subject\n0,anna\n1,〃\n", "line 3: subject '〃' stands for the line above and names nobody"),
    "no index": (",sequence,subject\n0,0,anna\n5,1,bo\n", "line 3: '5' stands in a column without a name"),
    "rows within a quote": (
        'sequence,subject,note\n0,a,"x\n1,b,\n2,c,y"\n',
        "line 2: 'x\\n1,b,\\n2,c,y' goes over several lines",
    ),
    "git conflict": (
        "<<<<<<< HEAD\nsequence,subject\n0,a\n",
        ", line 1: a conflict of git (<<<<<<<); keep one of the versions",
    ),
    "git conflict below": ("sequence,subject\n0,a\n<<<<<<< HEAD\n1,b\n=======\n>>>>>>> x\n", ", line 3: a conflict of git"),
    "zeros at the end": (PLAIN.encode() + bytes(600), "ends with 600 zero bytes, left by a save that broke off"),
    "zeros alone": (bytes(600), "ends with 600 zero bytes"),
    "open quote": ('sequence,subject\n00000,"anna\n00001,bo\n', "line 2: a quote is opened and not closed; mend the line"),
    "quote over two lines": (
        'sequence,subject\n0,"anna\n1",bo\n',
        "line 2: 'anna\\n1' goes over several lines; close the quote",
    ),
    "field without end": (f"sequence,subject\n0,{'a' * 200_000}\n", "line 2: field larger than field limit"),
    "long name": (f"sequence,subject\n0,{'a' * 300}\n", "line 2: subject 'aaaaaaaa"),
    "long id": (f"sequence,subject\n{'a' * 300},anna\n", "a...' has 300 signs; mend the line"),
    "long header": (f"{'a' * 1000},{'b' * 1000},c,d\n", "'c' and 1 more; expected"),
    "Excel": (workbook, "is a zip file, such as an Excel workbook (.xlsx), .docx, .npz or .pt; save it as CSV"),
    "old Excel": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "is an old Excel workbook (.xls); save it as CSV"),
    "gzip": (b"\x1f\x8b\x08\0", "is a gzip file; unpack it and give the CSV file"),
    "PDF": (b"%PDF-1.7", "is a PDF; save it as CSV"),
    "web page": ("\n<!DOCTYPE html><p>Sign in", "is a web page, such as a download gives where it needs a login; download it"),
    "JSON": ('{"00000": "anna"}', "is JSON, as partition files are"),
    "binary": (bytes(range(256)), "is a binary file, no text; save it as CSV"),
    "half a UTF-16 sign": (PLAIN.encode("utf-16")[:-1], "is a binary file, no text"),
    "folder": (Path.mkdir, "it is a folder, no file"),
    "pipe": (os.mkfifo, "it is a FIFO, no file"),
    "loop of links": (lambda path: path.symlink_to(path), "cannot be read (Too many levels of symbolic links)"),
    "dead link": (lambda path: path.symlink_to("nowhere"), "does not exist; give a CSV file"),
    "missing": (lambda path: None, "does not exist; give a CSV file with the columns sequence,subject"),
    "endless": (lambda path: os.truncate(write(path, ""), 2**40), "it has 1,099,511,627,776 bytes; at most 8,388,608 are read"),
}


@pytest.mark.parametrize("kind", SUBJECTS_REFUSED)
def test_other_subjects_files_are_refused_in_one_line_with_place_and_remedy(kind, tmp_path):
    content, words = SUBJECTS_REFUSED[kind]
    path = write(tmp_path / "subjects.csv", content)
    with pytest.raises(DataError) as caught:
        read_subjects(path, IDS)
    message = str(caught.value)
    assert message.startswith(f"--subjects={str(path)!r}")
    assert words in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))


REMARKED = {  # the file, the subjects, the further columns, and what is remarked
    "one mojibake in two cases": (
        "0,Ã¤nne\n1,ã¤nne\n",
        {"00000": "Ã¤nne", "00001": "ã¤nne"},
        "'ã¤nne' counts as another person than 'Ã¤nne'",
    ),
    "sharp s": (
        "0,Strauß\n1,Strauss\n",
        {"00000": "Strauß", "00001": "Strauss"},
        "'Strauss' counts as another person than 'Strauß'",
    ),
    "unknown once": ("0,NA\n1,unknown\n", {"00000": "NA", "00001": "unknown"}, ""),
}


@pytest.mark.parametrize("kind", REMARKED)
def test_what_could_be_meant_otherwise_is_remarked(kind, tmp_path):
    rows, people, words = REMARKED[kind]
    found = read_subjects(write(tmp_path / "subjects.csv", "sequence,subject\n" + rows), IDS)
    assert found == people
    assert [words in line for line in found.remarks] == [True] * bool(words)


def test_a_cell_of_several_lines_is_read_in_a_further_column(tmp_path):
    table = ',sequence,subject,note\n1,0,anna,"tired, after\nschool"\n2,1,bo,"a ""b""\r\n\r\nc"\n3,7,cy,\n'
    found = read_subjects(write(tmp_path / "subjects.csv", table), IDS)
    assert found == {"00000": "anna", "00001": "bo", "00007": "cy"}
    assert found.traits == {"note": {"00000": "tired, after school", "00001": 'a "b" c', "00007": ""}}
    assert ["a column without a name, which counts the lines, is left out" in line for line in found.remarks] == [True]


HEAVY = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (10**9, 10**9))
from data_pipelines.schema import DataError
from data_pipelines.partitions import read_partition
from data_pipelines.tables import read_subjects
from data_pipelines.texts import plain
from data_pipelines.texts import LARGEST
path = Path(sys.argv[1])
for piece in (",\\n", "[],", '"'):
    for head in ("sequence,subject\\n", "sequence,subject,", '{"TRAIN_SET": ['):
        path.write_text(head + piece * ((LARGEST - len(head)) // len(piece)), encoding="utf-8")
        for read in (lambda: read_subjects(path), lambda: read_partition(path, "data.partition", ())):
            try:
                read()
            except DataError as error:
                assert len(str(error)) < 500
            else:
                raise AssertionError(head + piece)
"""


@pytest.mark.slow
def test_the_heaviest_of_files_are_refused_within_a_gigabyte(tmp_path):
    command = [sys.executable, "-c", HEAVY, str(tmp_path / "heavy")]
    result = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=300, check=False)
    assert result.returncode == 0, result.stderr


def test_an_id_that_could_be_two_is_refused_by_name(tmp_path):
    path = write(tmp_path / "subjects.csv", "sequence,subject\n7,anna\n")
    with pytest.raises(
        DataError, match=r"line 2: sequence is '7', which could be '00007' or '0007'; write it in full, in quotes"
    ):
        read_subjects(path, ["0007", "00007"])
    assert read_subjects(path, ["7", "00007"]) == {"7": "anna"}  # as it stands
    assert read_subjects(path, ["8"]) == {"7": "anna"}
    thousand = write(tmp_path / "thousand.csv", "sequence,subject\n1.000,anna\n")
    assert read_subjects(thousand, ["00001", "01000"]) == {"1.000": "anna"}, "a thousand or one: nobody knows"
    blanks = write(tmp_path / "blanks.csv", "sequence,subject\nwalk 1 ,anna\n")
    assert read_subjects(blanks, ["walk 1 "]) == {"walk 1 ": "anna"}


def test_an_empty_option_is_not_no_option(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=1)
    result = run_here("data_pipelines.prepare", "--input", tree, "--output", tmp_path / "out", "--subjects", "")
    assert_one_clear_error(result, "--subjects: '' is no path (is a variable not set?)")
    assert result.returncode == 2
    path = write(tmp_path / "empty.csv", "")
    result = run_here("data_pipelines.prepare", "--input", tree, "--output", tmp_path / "out", "--subjects", path)
    assert_one_clear_error(result, "--subjects=", "is an empty file")
    assert not (tmp_path / "out").exists()
    assert read_subjects(None) == {}


def test_what_is_remarked_of_subjects_is_said_when_they_are_prepared(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=1)
    path = write(tmp_path / "subjects.csv", "sequence,subject\n0,Strauß\n1,Strauss\n2,bo\n".encode("cp1252"))
    result = run_here("data_pipelines.prepare", "--input", tree, "--output", tmp_path / "out", "--subjects", path)
    lines = result.stdout.splitlines()
    assert ["is read as Windows-1252" in line for line in lines] == [True, False, False]
    assert lines[1].startswith(
        f"warning: --subjects='{path}', line 3: subject 'Strauss' counts as another person than 'Strauß'"
    )


def test_further_columns_are_kept_with_the_prepared_set(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=1)
    table = "Sequence;Subject;sex;age;note\n2;anna;F;13,5;\n0;bo; M ;;\n1;bo;M;12;\n99;cy;M;11;\n98;cy;M;11;\n"
    path = write(tmp_path / "subjects.csv", table.encode("utf-16"))
    result = run_here("data_pipelines.prepare", "--input", tree, "--output", tmp_path / "out", "--subjects", path)
    assert result.returncode == 0, result.stderr
    assert "2 of its lines are of sequences that are not in the data: 98, 99" in result.stdout
    data = open_prepared(tmp_path / "out")
    assert data.subjects == ("bo", "bo", "anna")
    assert data.traits == {"sex": ("M", "M", "F"), "age": ("", "12", "13,5")}  # an empty column is none
    plain = write(tmp_path / "plain.csv", "sequence,subject\n00000,bo\n00001,bo\n00002,anna\n")
    prepare(str(tree), tmp_path / "plain", subjects=str(plain))
    without = open_prepared(tmp_path / "plain")
    assert without.traits == {}
    assert without.digest() == data.digest(), "no step depends on the further columns"
    metadata = json.loads((prepared_folder(tmp_path / "plain") / "metadata.json").read_text(encoding="utf-8"))
    assert "traits" not in metadata, "a set without them is as it always was"


PARTITION = {"TRAIN_SET": ["00001", "00003"], "TEST_SET": ["00000", "00005"]}
TEXT = json.dumps(PARTITION)
PARTITIONS_READ = {
    "as released": TEXT,
    "byte order mark": TEXT.encode("utf-8-sig"),
    "UTF-16": TEXT.encode("utf-16"),
    "UTF-16 without a mark": TEXT.encode("utf-16-le"),
    "numbers": '{"TRAIN_SET": [1, 3], "TEST_SET": [0, 5]}',
    "numbers with a point": '{"TRAIN_SET": [1.0, 3.0], "TEST_SET": [0.0, 5]}',
    "without leading zeros": '{"TRAIN_SET": ["1", "3.0"], "TEST_SET": ["0", "5"]}',
    "keys in other case": '{" train_set ": ["00001", "00003"], "Test Set": ["00000", "00005"]}',
    "blanks and quotes in ids": '{"TRAIN_SET": [" 00001", "\'00003\'"], "TEST_SET": ["\\"00000\\"", "00005\\n"]}',
}


@pytest.mark.parametrize("kind", PARTITIONS_READ)
def test_partitions_are_read_in_any_clothes(kind, tmp_path):
    path = write(tmp_path / "partition.json", PARTITIONS_READ[kind])
    found = read_partition(path, "data.partition", IDS)
    assert [found.train, found.test] == list(PARTITION.values())
    assert found.unused == []
    partition = make_partition(make_set(per_class=2), str(path), 0.0)
    assert [partition.train.tolist(), partition.test.tolist()] == [[1, 3], [0, 5]]


def parts(train: str, test: str = '["00000"]') -> str:
    return f'{{"TRAIN_SET": {train}, "TEST_SET": {test}}}'


PARTITIONS_REFUSED = {
    "empty": ("", "is an empty file; give the JSON file"),
    "no JSON": ("TRAIN_SET: 1", "line 1, column 1: not JSON (Expecting value)"),
    "half": (TEXT[:-9], "line 1, column 56: not JSON (Expecting"),
    "comma at the end": ('{\n"TRAIN_SET": ["1",],\n"TEST_SET": []}', "line 2, column 1"),
    "nested 10,000 deep": ("[" * 10_000, "is nested too deep to be a partition file"),
    "ids nested 10,000 deep": (parts("[" * 10_000 + "]" * 10_000), "is nested too deep"),
    "list": ("[1, 2]", "is not a partition file (it holds a list); expected {"),
    "null": ("null", "it holds null"),
    "text": ('"00001"', 'it holds "00001"'),
    "number": ("1", "it holds 1"),
    "keys missing": ('{"train": [1], "test": [2]}', "no TRAIN_SET, but 'train', 'test'"),
    "one key missing": ('{"TRAIN_SET": ["1"]}', "is not a partition file (no TEST_SET, but 'TRAIN_SET')"),
    "nothing in it": ("{}", "no TRAIN_SET, but nothing"),
    "key twice": ('{"TRAIN_SET": [1], "TRAIN_SET": [2], "TEST_SET": [3]}', "names 'TRAIN_SET' twice"),
    "key in two spellings": ('{"TRAIN_SET": [1], "train_set": [2], "TEST_SET": [3]}', "names TRAIN_SET twice, as"),
    "empty part": (parts("[]"), "TRAIN_SET is empty"),
    "part is null": (parts("null"), "TRAIN_SET is null; expected {"),
    "part is a text": (parts('"00001"'), 'TRAIN_SET is "00001"'),
    "part is an object": (parts('{"00001": 1}'), "TRAIN_SET is an object"),
    "bool": (parts("[3, true]"), "TRAIN_SET[1] is true; write the id of a sequence there, or delete it"),
    "null id": (parts("[null]"), "TRAIN_SET[0] is null"),
    "id that is a list": (parts('[["00001"]]'), "TRAIN_SET[0] is a list"),
    "id that is an object": (parts("[{}]"), "TRAIN_SET[0] is an object"),
    "empty id": (parts('[" "]'), 'TRAIN_SET[0] is " "'),
    "id of two lines": (parts('["a\\nb"]'), r"TRAIN_SET[0] is 'a\nb', which is no id"),
    "id without end": (parts(f'["{"a" * 10_000}"]'), "a...', which is no id; write the id of a sequence there"),
    "half a sign": (parts(r'["\ud800"]'), r"TRAIN_SET[0] is '\ud800', which is no id"),
    "key without end": (f'{{"{"a" * 10_000}": []}}', "a...'); expected"),
    "broken number": (parts("[1.5]"), "TRAIN_SET[0] is 1.5"),
    "not a number": (parts("[NaN]"), "holds NaN, which is no id"),
    "infinite": (parts("[Infinity]"), "holds Infinity, which is no id"),
    "beyond all bounds": (parts("[1e999]"), "TRAIN_SET[0] is a number beyond all bounds"),
    "5,000 digits": (parts(f"[{'9' * 5000}]"), "holds a number of thousands of digits, which is no id"),
    "id twice": (parts('["00001", "1"]'), "TRAIN_SET lists 00001 more than once (TRAIN_SET[0] and [1])"),
    "id in both parts": (parts('["00001", 0]'), "00000 stand in both TRAIN_SET and TEST_SET"),
    "id that is not there": (parts("[90000]"), "names 2 sequences, of which the data lack 1: 90000"),
    "Excel": (workbook, "is a zip file, such as an Excel workbook (.xlsx), .docx, .npz or .pt; save it as JSON"),
    "web page": ("<html>", "is a web page, such as a download gives where it needs a login; download it"),
    "git conflict": ("<<<<<<< HEAD\n{}", ", line 1: a conflict of git (<<<<<<<)"),
    "zeros at the end": (TEXT.encode() + bytes(9), "ends with 9 zero bytes"),
    "binary": (b"\x80\x04\x95\0\0", "is a binary file"),
    "folder": (Path.mkdir, "it is a folder, no file"),
    "pipe": (os.mkfifo, "it is a FIFO, no file"),
    "missing": (lambda path: None, "is neither a file nor a ratio such as"),
}


@pytest.mark.parametrize("kind", PARTITIONS_REFUSED)
def test_other_partition_files_are_refused_in_one_line_with_place_and_remedy(kind, tmp_path):
    content, words = PARTITIONS_REFUSED[kind]
    path = write(tmp_path / "partition.json", content)
    with pytest.raises(DataError) as caught:
        make_partition(make_set(per_class=3), str(path), 0.0)
    message = str(caught.value)
    assert message.startswith(f"data.partition={str(path)!r}")
    assert words in message
    assert "\n" not in message
    assert len(message) < 400 + len(str(path))


def test_a_number_that_could_be_two_ids_is_refused_by_name(tmp_path):
    for text in (parts("[7]"), parts('["7"]')):
        path = write(tmp_path / "partition.json", text)
        with pytest.raises(DataError, match=r"TRAIN_SET\[0\] is '?7'?, which could be '00007' or '0007'"):
            read_partition(path, "data.partition", ["00007", "0007"])
    with pytest.raises(DataError, match="is 7, which could be '00007' or '7'"):
        read_partition(write(path, parts("[7]")), "data.partition", ["00007", "7"])
    assert read_partition(write(path, parts('["7"]')), "data.partition", ["00007", "7"]).train == ["7"]


@settings(max_examples=40, deadline=None)
@given(
    st.one_of(st.binary(max_size=80), st.text(max_size=80).map(str.encode), st.text('",;\t\n =07{}[]:TRAIN_SEaé', max_size=60))
)
def test_whatever_stands_in_a_file_is_read_or_refused_in_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "whatever"
    for head in ("", "sequence,subject\n", '{"TRAIN_SET": ["00001"], "TEST_SET": '):
        write(path, head.encode() + (content.encode() if isinstance(content, str) else content))
        for read in (lambda: read_subjects(path, IDS), lambda: read_partition(path, "data.partition", IDS)):
            try:
                read()
            except DataError as error:
                assert len(str(error).splitlines()) == 1


CLASS_NAMES = {
    " Positive ": 2,
    "POSITIVE": 2,
    "neutral\t": 1,
    "\uff2eegative": 0,
    "positiv": "did you mean positive?",
    "Negativ": "did you mean negative?",
    "neutrale": "did you mean neutral?",
    "Neutral_": "did you mean neutral?",
    "阳性": "did you mean positive?",
    "阴性": "did you mean negative?",
    "Critical": "write the one that is meant: nobody but you can know",
    "2": "write the one that is meant",
    "": "write the one that is meant",
}


@pytest.mark.parametrize("name", CLASS_NAMES)
def test_class_names_are_read_or_what_is_meant_is_asked(name):
    meant = CLASS_NAMES[name]
    if isinstance(meant, int):
        assert class_id(name) == meant
        return
    with pytest.raises(DataError) as caught:
        class_id(name)
    assert f"unknown class {name!r}; the classes are negative, neutral, positive (any case); {meant}" in str(caught.value)


def test_a_class_folder_with_blanks_is_prepared_and_critical_is_refused(tmp_path):
    tree = write_tree(tmp_path / "tree", per_class=1)
    folder = tree / "00002" / "Positive"
    blank = folder.rename(folder.with_name(" Positive "))
    prepare(str(tree), tmp_path / "out")
    assert open_prepared(tmp_path / "out").labels.tolist() == [0, 1, 2]
    blank.rename(folder.with_name("Critical"))
    with pytest.raises(
        DataError, match="00002/Critical: unknown class 'Critical'; the classes are negative, neutral, positive"
    ):
        prepare(str(tree), tmp_path / "again")
