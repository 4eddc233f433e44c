"""The process that runs a deployed model on image files; :mod:`job.predict.images` starts it.

The request has ``folder``, ``deploy`` (the content of deploy.json), ``files``, ``threads`` and
``batch_size``. The process sends {"progress": [done, total]} and then {"result": [...]}: for each
file ``number`` and ``probability`` of the best class, or ``objects`` with ``number``, ``score`` and
``box`` of each object, or ``error``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.decode import UnreadableImageError, decode
from job.data.transforms import Evaluate, Floats, Image, normalize
from job.detection.boxes import Size
from job.detection.decode import Head, Selection, detections
from job.errors import DataError
from job.predict.main import model_errors
from job.process.json_channel import JsonChannel, run_child
from job.report.deploy import NAME
from job.tasks.task import Outputs

RESTORE = "Restore deploy.json: `job report` writes it again."
DAMAGED = "If the files are damaged, copy the folder of the run again."
LIBRARIES = {"openvino": "OpenVINO", "onnxruntime": "ONNX Runtime"}
# Meaning of the outputs of a detector that decodes boxes.
BOXES = "boxes"


def open_model(folder: Path, deploy: Mapping[str, Any], threads: int) -> Any:
    """Load a deployed model into its engine; of a detector with decoded boxes, the whole model.

    Raises:
        DataError: deploy.json does not describe the model.
    """
    engine = deploy["model"]["engine"]
    if engine == "openvino":
        from job.engine.openvino import convert as openvino

        model = openvino.open_model(folder, threads)
        check_shape(folder, deploy, model.input_shape())
        return model
    if engine == "onnxruntime":
        from job.engine.onnxruntime import convert as onnxruntime

        found = onnxruntime.open_model(folder, threads)
        check_shape(folder, deploy, found.input_shape())
        return found
    check_program(folder, deploy)
    if engine == "paddle_openvino":
        from job.engine.paddle_openvino import model as paddle_openvino

        return paddle_openvino.open_model(folder, threads)
    from job.engine.inference import predictor

    if deploy["model"]["precision"] == "int8":
        mode = predictor.INT8
    else:
        mode = predictor.ONEDNN if deploy["model"]["load"]["enable_mkldnn"] else predictor.NATIVE
    if deploy["output"]["meaning"] == BOXES:
        from job.engine.inference.detector import open_detector

        return open_detector(folder / "model", mode, threads)
    return predictor.Predictor(predictor.configuration(folder / "model", mode, threads=threads))


def check_program(folder: Path, deploy: Mapping[str, Any]) -> None:
    """Check that a Paddle program is for the engine and the images in deploy.json.

    Raises:
        DataError: the program is of another kind, so its engine would compute wrong scores, or it
            reads images of another shape.
    """
    from job.engine.inference.saved_model import kind_and_inputs

    model = deploy["model"]
    expected = model["precision"] if model["engine"] == "paddle" else model["engine"]
    found, inputs = kind_and_inputs(folder / "model.pdmodel")
    name = deploy["input"]["name"]
    if name not in inputs:
        raise DataError(
            f"{folder / NAME}: /input/name is {name}, but the model reads {', '.join(inputs)}",
            RESTORE,
        )
    check_shape(folder, deploy, inputs[name])
    if found != expected:
        raise DataError(
            f"{folder / NAME}: /model names the engine {model['engine']} and {model['precision']}, "
            f"but the program is of the kind {found}",
            RESTORE,
        )


def check_shape(folder: Path, deploy: Mapping[str, Any], shape: Sequence[Any]) -> None:
    """Check that deploy.json names the shape of the images that a model reads.

    Args:
        folder: folder of the model.
        deploy: the content of deploy.json.
        shape: [N, C, H, W] of the model; a size that is not a positive number stands for any size.

    Raises:
        DataError: the shapes differ, so the model would compute wrong scores.
    """
    given = deploy["input"]["shape"]
    fixed = [size if isinstance(size, int) and size > 0 else None for size in shape]
    pairs = zip(fixed[1:], given[1:], strict=False)
    if len(fixed) != len(given) or any(size not in (None, own) for size, own in pairs):
        raise DataError(
            f"{folder / NAME}: /input/shape is {given}, but the model reads {fixed}",
            RESTORE,
        )


def prepared(pixels: Image, deploy: Mapping[str, Any]) -> Floats:
    """Return an image [height, width, channels] as input of the model, float32 [1, C, H, W]."""
    _, _, height, width = deploy["input"]["shape"]
    steps = deploy["transform"]
    short = steps["resize"]["size"] if steps["resize"]["mode"] == "short_side" else None
    resized = Evaluate((height, width), short)(pixels)
    return normalize(np.asarray(resized, np.uint8)[None], tuple(steps["mean"]), tuple(steps["std"]))


def probabilities(outputs: NDArray[np.float32], meaning: str) -> NDArray[np.float64]:
    """Return the probabilities [N, classes] of a model's outputs [N, classes]."""
    values = np.asarray(outputs, np.float64)
    if meaning == "probabilities":
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def class_rows(outputs: Outputs, deploy: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return number and probability of the best class of each image."""
    names = deploy["class_names"]
    if names and len(names) != outputs[0].shape[1]:
        raise DataError(
            f"{NAME}: /class_names has {len(names)} names, but the model has "
            f"{outputs[0].shape[1]} classes",
            RESTORE,
        )
    shares = probabilities(outputs[0], deploy["output"]["meaning"])
    return [{"number": int(each.argmax()), "probability": float(each.max())} for each in shares]


def decoded(
    model: Any, images: Floats, deploy: Mapping[str, Any], sizes: Sequence[Size]
) -> list[dict[str, Any]]:
    """Return the objects of each image, as a model that decodes boxes finds them.

    Args:
        model: the loaded detector.
        images: float32 [N, C, H, W].
        deploy: the content of deploy.json.
        sizes: height and width of each image file, in pixels; boxes are in these pixels.
    """
    from job.engine.inference.decoding import sizes_of

    ratios = np.divide(images.shape[2:], np.array(sizes), dtype=np.float32)
    given = {deploy["input"]["name"]: images, **sizes_of(images, ratios)}
    found = dict(zip(model.names, model.run(given), strict=True))
    output = deploy["output"]
    boxes = found[output["boxes"]]
    counts = found[output["counts"]] if "counts" in output else [len(boxes)]
    return [box_rows(each) for each in np.split(boxes, np.cumsum(counts)[:-1])]


def box_rows(rows: NDArray[np.float32]) -> dict[str, Any]:
    """Return the objects of an image, the highest score first.

    Args:
        rows: [boxes, 6]: class, score, left, top, right, bottom. NMS without a result returns a
            row with a negative class, or one number.
    """
    kept = rows[rows[:, 0] >= 0]
    return {
        "objects": [
            {"number": int(row[0]), "score": float(row[1]), "box": [float(x) for x in row[2:]]}
            for row in kept[np.argsort(-kept[:, 1:2].ravel(), kind="stable")]
        ]
    }


def batch_limit(deploy: Mapping[str, Any], batch_size: int) -> int:
    """Return the number of images that a model can read in one call."""
    if deploy["output"]["meaning"] != BOXES:
        return batch_size
    alone = "counts" not in deploy["output"]
    return 1 if alone else int(deploy["input"]["shape"][0] or batch_size)


def object_rows(
    outputs: Outputs, deploy: Mapping[str, Any], sizes: Sequence[Size]
) -> list[dict[str, Any]]:
    """Return the objects of each image, the highest score first.

    Args:
        outputs: outputs of the heads.
        deploy: the content of deploy.json.
        sizes: height and width of each image file, in pixels; boxes are in these pixels.
    """
    spec = deploy["detection"]
    heads = [
        Head(head["stride"], tuple((float(w), float(h)) for w, h in head["anchors"]))
        for head in spec["heads"]
    ]
    settings = Selection(
        score_threshold=spec["score_threshold"], nms_threshold=spec["nms_threshold"]
    )
    rows = []
    for found in detections(outputs, heads, sizes, settings):
        order = np.argsort(-found.scores, kind="stable")
        rows.append(
            {
                "objects": [
                    {
                        "number": int(found.classes[place]),
                        "score": float(found.scores[place]),
                        "box": [float(side) for side in found.boxes[place]],
                    }
                    for place in order
                ]
            }
        )
    return rows


def answers(
    model: Any, deploy: Mapping[str, Any], files: Sequence[str], batch_size: int
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each batch of files."""
    batch_size = batch_limit(deploy, batch_size)
    for start in range(0, len(files), batch_size):
        rows: list[dict[str, Any]] = []
        images, sizes, readable = [], [], []
        for file in files[start : start + batch_size]:
            rows.append({})
            try:
                pixels = decode(Path(file), deploy["input"]["shape"][1])
                images.append(prepared(pixels, deploy))
                sizes.append((pixels.shape[0], pixels.shape[1]))
                readable.append(rows[-1])
            except UnreadableImageError as error:
                rows[-1]["error"] = error.reason
        if images:
            found = batch_rows(model, np.concatenate(images), deploy, sizes)
            for row, answer in zip(readable, found, strict=True):
                row.update(answer)
        yield rows


def batch_rows(
    model: Any, images: Floats, deploy: Mapping[str, Any], sizes: Sequence[Size]
) -> list[dict[str, Any]]:
    """Return the row of each image of a batch, float32 [N, C, H, W]."""
    if deploy["output"]["meaning"] == BOXES:
        return decoded(model, images, deploy, sizes)
    outputs = model.outputs(images)
    if "detection" in deploy:
        return object_rows(outputs, deploy, sizes)
    return class_rows(outputs, deploy)


def main(request: Mapping[str, Any], channel: JsonChannel) -> None:
    """Load the model and run it on the requested files."""
    deploy, files = request["deploy"], request["files"]
    folder = Path(request["folder"])
    library = LIBRARIES.get(deploy["model"]["engine"], "Paddle")
    result: list[dict[str, Any]] = []
    with model_errors(folder, library, DAMAGED):
        model = open_model(folder, deploy, request["threads"])
    for rows in answers(model, deploy, files, request["batch_size"]):
        result += rows
        channel.send(progress=[len(result), len(files)])
    channel.send(result=result)


if __name__ == "__main__":
    run_child(main)
