"""The process that classifies image files; :mod:`job.predict.images` starts it.

The request has ``folder``, ``deploy`` (the content of deploy.json), ``files``, ``threads`` and
``batch_size``. The process sends {"progress": [done, total]} and then {"result": [...]}: for each
file ``number`` and ``probability`` of the best class, or ``error``.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from job.data.decode import UnreadableImageError, decode
from job.data.transforms import Evaluate, Floats, normalize
from job.process.json_channel import JsonChannel, run_child


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


def prepared(file: Path, deploy: Mapping[str, Any]) -> Floats:
    """Return an image file as input of the model, float32 [1, C, H, W].

    Raises:
        UnreadableImageError: the file is not an image.
    """
    _, channels, height, width = deploy["input"]["shape"]
    steps = deploy["transform"]
    short = steps["resize"]["size"] if steps["resize"]["mode"] == "short_side" else None
    pixels = Evaluate((height, width), short)(decode(file, channels))
    return normalize(np.asarray(pixels, np.uint8)[None], tuple(steps["mean"]), tuple(steps["std"]))


def probabilities(outputs: NDArray[np.float32], meaning: str) -> NDArray[np.float64]:
    """Return the probabilities [N, classes] of a model's outputs [N, classes]."""
    values = np.asarray(outputs, np.float64)
    if meaning == "probabilities":
        return values
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return shares


def answers(
    model: Any, deploy: Mapping[str, Any], files: Sequence[str], batch_size: int
) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of each batch of files."""
    for start in range(0, len(files), batch_size):
        rows: list[dict[str, Any]] = []
        images, readable = [], []
        for file in files[start : start + batch_size]:
            rows.append({})
            try:
                images.append(prepared(Path(file), deploy))
                readable.append(rows[-1])
            except UnreadableImageError as error:
                rows[-1]["error"] = error.reason
        if images:
            outputs = model.scores(np.concatenate(images))
            for row, shares in zip(
                readable, probabilities(outputs, deploy["output"]["meaning"]), strict=True
            ):
                row["number"] = int(shares.argmax())
                row["probability"] = float(shares.max())
        yield rows


def main(request: Mapping[str, Any], channel: JsonChannel) -> None:
    """Load the model and classify the requested files."""
    deploy, files = request["deploy"], request["files"]
    model = open_model(Path(request["folder"]), deploy, request["threads"])
    result: list[dict[str, Any]] = []
    for rows in answers(model, deploy, files, request["batch_size"]):
        result += rows
        channel.send(progress=[len(result), len(files)])
    channel.send(result=result)


if __name__ == "__main__":
    run_child(main)
