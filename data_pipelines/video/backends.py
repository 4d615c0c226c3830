"""Choice of the segmentation backend."""

from collections.abc import Callable
from pathlib import Path

from data_pipelines.schema import DataError
from data_pipelines.video.background import Background
from data_pipelines.video.fetch import REMEDY, model_folder, models_there
from data_pipelines.video.onnx_model import OnnxModel
from data_pipelines.video.people import Segmenter
from data_pipelines.video.pose import Pose

BACKENDS = ("auto", "pose", "background", "onnx")


def make_segmenter(
    backend: str,
    models: Path | None = None,
    onnx_model: Path | None = None,
    report: Callable[[str], None] = lambda line: None,
) -> Segmenter:
    """Segmenter of one of the `BACKENDS`; "auto" is pose if its models have been fetched, otherwise background.

    `models` is the folder of the pose models, by default the one that `data_pipelines.video.fetch` fills; `onnx_model` is the
    file of the backend onnx. `report` receives a line where "auto" has to do without pose.
    """
    if backend not in BACKENDS:
        raise DataError(f"--backend={backend!r} is unknown; known are {', '.join(BACKENDS)}")
    if (onnx_model is None) == (backend == "onnx"):
        raise DataError(f"--backend={backend} and --onnx-model belong together; give both or neither")
    if models is not None and backend not in ("pose", "auto"):
        raise DataError(f"--models is of --backend pose, not {backend}; leave it out")
    if onnx_model is not None:
        return OnnxModel(onnx_model)
    folder = models or model_folder()
    if backend == "auto" and models is None:
        backend = "pose" if models_there(folder) else "background"
        if backend == "background":
            report(f"the models of pose, which finds people better than background, are not in {folder}; {REMEDY}")
    return Background() if backend == "background" else Pose(folder)
