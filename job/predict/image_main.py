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
from job.process.json_channel import JsonChannel, run_child
from job.tasks.task import Outputs


def open_model(folder: Path, deploy: Mapping[str, Any], threads: int) -> Any:
    """Load a deployed model into its engine."""
    engine = deploy["model"]["engine"]
    if engine == "openvino":
        from job.engine.openvino import convert as openvino

        return openvino.open_model(folder, threads)
    if engine == "paddle_openvino":
        from job.engine.paddle_openvino import model as paddle_openvino

        return paddle_openvino.open_model(folder, threads)
    if engine == "onnxruntime":
        from job.engine.onnxruntime import convert as onnxruntime

        return onnxruntime.open_model(folder, threads)
    from job.engine.inference import predictor

    if deploy["model"]["precision"] == "int8":
        mode = predictor.INT8
    else:
        mode = predictor.ONEDNN if deploy["model"]["load"]["enable_mkldnn"] else predictor.NATIVE
    return predictor.Predictor(predictor.configuration(folder / "model", mode, threads=threads))


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
    shares = probabilities(outputs[0], deploy["output"]["meaning"])
    return [{"number": int(each.argmax()), "probability": float(each.max())} for each in shares]


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
            outputs = model.outputs(np.concatenate(images))
            found = (
                object_rows(outputs, deploy, sizes)
                if "detection" in deploy
                else class_rows(outputs, deploy)
            )
            for row, answer in zip(readable, found, strict=True):
                row.update(answer)
        yield rows


def main(request: Mapping[str, Any], channel: JsonChannel) -> None:
    """Load the model and run it on the requested files."""
    deploy, files = request["deploy"], request["files"]
    model = open_model(Path(request["folder"]), deploy, request["threads"])
    result: list[dict[str, Any]] = []
    for rows in answers(model, deploy, files, request["batch_size"]):
        result += rows
        channel.send(progress=[len(result), len(files)])
    channel.send(result=result)


if __name__ == "__main__":
    run_child(main)
