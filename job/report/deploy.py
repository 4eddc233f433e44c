"""Builds deploy.json of each model folder from the report of a run.

The report is the only source, because the fastest setting is known after the benchmark. Therefore
deploy.json is written together with the report, and not by the stage that writes the model.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from job.report.scenarios import fastest
from job.report.tables import percentile
from job.tasks.detection import STRIDES

NAME = "deploy.json"
PADDLE, PADDLE_OPENVINO = "paddle", "paddle_openvino"
OPENVINO, ONNXRUNTIME = "openvino", "onnxruntime"
FILES: Mapping[str, Sequence[str]] = {
    PADDLE: ("model.pdmodel", "model.pdiparams"),
    PADDLE_OPENVINO: ("model.pdmodel", "model.pdiparams"),
    OPENVINO: ("model.xml", "model.bin"),
    ONNXRUNTIME: ("model.onnx",),
}
SOFTWARE = {
    PADDLE: "paddlepaddle",
    PADDLE_OPENVINO: "paddlepaddle",
    OPENVINO: "openvino",
    ONNXRUNTIME: "onnxruntime",
}
# As in job/engine/inference/predictor.py, which gives the reasons.
LOADS: Mapping[str, Mapping[str, Any]] = {
    "native": {
        "enable_mkldnn": False,
        "switch_ir_optim": True,
        "keep_passes": None,
        "delete_passes": [],
    },
    "onednn": {
        "enable_mkldnn": True,
        "switch_ir_optim": True,
        "keep_passes": None,
        "delete_passes": ["repeated_fc_relu_fuse_pass"],
    },
    "int8": {
        "enable_mkldnn": True,
        "switch_ir_optim": True,
        "keep_passes": ["constant_folding_pass"],
        "delete_passes": [],
    },
}
# Not the paths in the report, because a report from elsewhere must not choose where files go.
FOLDERS: Mapping[str, str] = {
    "fp32": "fp32",
    "int8": "int8",
    PADDLE_OPENVINO: "int8_paddle_openvino",
    OPENVINO: "int8_openvino",
    ONNXRUNTIME: "int8_onnxruntime",
}
# Inputs of an exported detector besides the image, float32 [N, 2] -> their meaning.
SIZE_INPUTS: Mapping[str, str] = {"im_shape": "input_size", "scale_factor": "input_over_file"}
NO_CAP = "all"


def deploy_records(report: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """Return the deployment record of each model of a valid report of a run, by its folder.

    The fake-quantized model has none, because it is not for deployment. A report of an older
    version, which does not describe the interface of the models, has no records.
    """
    names = [name for name in report["models"] if name != "qat_fake"]
    if not all("interface" in report["models"][name] for name in names):
        return {}
    every = [each for name in names for each in configurations(report, name)]
    return {
        FOLDERS[name]: {
            "version": 1,
            "name": report["name"],
            "model": _model(report, name),
            "input": {
                "name": report["models"][name]["interface"]["input"],
                "shape": [None, *report["manifest"]["model"]["input_shape"]],
                "layout": "NCHW",
                "dtype": "float32",
                **_image_of_detector(report, name),
            },
            "transform": transform(report["manifest"], report["data"]),
            **_OUTPUTS[report["manifest"].get("task", "classification")](report, name),
            **_boxes(report, name),
            "class_names": class_names(report),
            "measured": _best(configurations(report, name)),
            "fastest": _best(every),
            "scenarios": {key: dict(found) for key, found in fastest(every).items()},
        }
        for name in names
    }


def class_names(report: Mapping[str, Any]) -> list[str]:
    """Return the name of each class of a run by label; its number if it has no name."""
    named = report["data"].get("class_names")
    return list(named or map(str, range(report["manifest"]["model"]["classes"])))


def transform(manifest: Mapping[str, Any], data: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the steps from a file to the input, as :mod:`job.data.transforms` computes them.

    Args:
        manifest: the resolved manifest.
        data: the section ``data`` of the report.
    """
    if data["normalised"]:
        return None
    channels, height, width = manifest["model"]["input_shape"]
    if channels not in (1, 3):
        return None
    spec = manifest["data"]
    short = spec["resize_short"]
    return {
        "channel_order": "gray" if channels == 1 else "RGB",
        "exif_orientation": "ignored",
        "resize": {
            "mode": "exact" if short is None else "short_side",
            "size": [height, width] if short is None else short,
            "interpolation": "bilinear",
            "antialias": True,
        },
        "crop": None if short is None else [height, width],
        "scale": 1 / 255,
        "mean": list(spec["mean"]),
        "std": list(spec["std"]),
    }


def engine_of(name: str) -> str:
    """Return the engine of a model of the report: its own name, or Paddle."""
    return name if name in SOFTWARE else PADDLE


def _model(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    engine = engine_of(name)
    load = None
    if engine == PADDLE:
        load = LOADS["int8" if name == "int8" else report["benchmark"][0]["fp32"]["engine"]]
    return {
        "precision": "fp32" if name == "fp32" else "int8",
        "engine": engine,
        "version": report["versions"][SOFTWARE[engine]],
        "files": list(FILES[engine]),
        "load": dict(load) if load else None,
    }


def _scores(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    interface = report["models"][name]["interface"]
    output = {
        "name": interface["output"],
        "shape": [None, report["manifest"]["model"]["classes"]],
        "dtype": "float32",
        "meaning": "probabilities" if interface["probabilities"] else "scores",
    }
    return {"output": output}


def _heads(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    spec = report["manifest"]["detection"]
    # The manifest has the finest head first, and the network the coarsest.
    heads = [
        {"stride": stride, "anchors": anchors}
        for stride, anchors in zip(STRIDES, spec["anchors"], strict=True)
    ]
    return {
        "output": _outputs(report, name, "heads"),
        "detection": {
            "heads": heads[::-1],
            "score_threshold": spec["score_threshold"],
            "nms_threshold": spec["nms_threshold"],
        },
    }


def _other(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    return {"output": _outputs(report, name, "other")}


def _outputs(report: Mapping[str, Any], name: str, meaning: str) -> dict[str, Any]:
    interface = report["models"][name]["interface"]
    names = {"names": interface["outputs"]} if "outputs" in interface else {}
    return {
        "name": interface["output"],
        **names,
        "shape": None,
        "dtype": "float32",
        "meaning": meaning,
    }


def _image_of_detector(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the keys of the input that differ in a model that decodes boxes."""
    detector = report["models"][name]["interface"].get("detector")
    if detector is None:
        return {}
    (image,) = (each for each in detector["inputs"] if each not in SIZE_INPUTS)
    shape = [detector["batch"], *report["manifest"]["model"]["input_shape"]]
    return {"name": image, "shape": shape}


def _boxes(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return the keys output and size_inputs of a model that decodes boxes; else nothing."""
    detector = report["models"][name]["interface"].get("detector")
    if detector is None:
        return {}
    names = detector["outputs"]
    found = {key: detector[key] for key in ("boxes", "counts") if detector[key]}
    return {
        "size_inputs": {key: SIZE_INPUTS[key] for key in detector["inputs"] if key in SIZE_INPUTS},
        "output": {
            "name": detector["boxes"] or names[0],
            **({"names": names} if len(names) > 1 else {}),
            "shape": None,
            "dtype": "float32",
            "meaning": "boxes" if detector["boxes"] else "other",
            **found,
        },
    }


# Task -> the keys output and detection of the record.
_OUTPUTS: Mapping[str, Callable[[Mapping[str, Any], str], dict[str, Any]]] = {
    "classification": _scores,
    "detection": _heads,
    "outputs": _other,
}


def configurations(report: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Return a model's measured settings, under no ISA cap if there are any.

    Args:
        report: a valid report of a run.
        name: name of the model; the fake-quantized model has no measurement.
    """
    rows = [row for row in report["benchmark"] if row["isa_cap"] == NO_CAP] or report["benchmark"]
    found = []
    for row in rows:
        speed = row[name] if name in ("fp32", "int8") else row["engines"].get(name)
        if speed is None:
            continue
        found.append(
            {
                "folder": FOLDERS[name],
                "engine": engine_of(name),
                **{key: row[key] for key in ("threads", "instances", "batch_size", "isa_cap")},
                "images_per_second": speed["images_per_second"],
                "p50_ms": speed["latency_ms"]["p50"],
                "p90_ms": percentile(speed, "p90"),
                "p99_ms": percentile(speed, "p99"),
                "stable": row["stable"],
            }
        )
    return found


def _best(settings: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return the settings with the most images/s and with the shortest call."""
    if not settings:
        return None
    return {
        "throughput": dict(max(settings, key=lambda each: each["images_per_second"])),
        "latency": dict(min(settings, key=lambda each: each["p50_ms"])),
    }
