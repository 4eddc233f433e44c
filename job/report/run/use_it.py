"""The section that shows how to use the model of a run, and the line about its origin."""

from collections.abc import Mapping
from typing import Any

from job import text_format
from job.report.cells import UNSTABLE_NOTE
from job.report.deploy import deploy_records
from job.report.render.blocks import Code, Section, Text


def about(report: Mapping[str, Any]) -> str:
    """Return the model, the data and the machine of a report in one line."""
    manifest = report["manifest"]
    host = report["host"]["cpu_model"]
    if "model" not in manifest or "data" not in report:
        return f"Measured on {host}"
    model = manifest["model"]
    named = next(
        (str(model[key]) for key in ("name", "callable", "inference_model") if model.get(key)),
        "own network",
    )
    shape = "×".join(map(str, model["input_shape"]))
    images = report["data"]["splits"]["test"]["images"]
    classes = text_format.count(model["classes"])
    root = manifest["data"].get("root")
    data = f"{report['data']['format']}{f' {root}' if root else ''}"
    return (
        f"{named} {shape}, {classes} classes; {data}, {text_format.plural(images, 'test image')}; "
        f"{host}"
    )


def use_sections(report: Mapping[str, Any]) -> tuple[Section, ...]:
    """Return the section with the folder to deploy and a command; none in older reports."""
    records = deploy_records(report)
    if not records:
        return ()
    best = records["int8"]["fastest"]["throughput"]
    pays = best["folder"] != "fp32"
    mark = "" if best["stable"] else text_format.UNSTABLE
    fastest = (
        f"{best['folder']}/ is the fastest model: "
        f"{text_format.significant(best['images_per_second'])}{mark} images/s with batch size "
        f"{best['batch_size']}, {text_format.plural(best['threads'], 'thread')} and "
        f"{text_format.plural(best['instances'], 'instance')}."
    )
    if mark:
        fastest += f" {UNSTABLE_NOTE} Measure again on an idle machine."
    advice = "" if pays else " Compare the settings in table II before you deploy INT8."
    text = (
        f"{fastest}{advice} Copy this folder of the output to your service. Its deploy.json has "
        "the transform, the class names and the settings."
    )
    command = _command(records["int8"], best["folder"])
    code = (Code("Try it", command, language="sh", folded=False),) if command else ()
    return (Section("Use it", (Text(text), *code)),)


def _command(record: Mapping[str, Any], folder: str) -> str:
    """Return a ``job predict`` command for a model; empty if the command cannot use its outputs."""
    if record["output"]["meaning"] == "other":
        return ""
    images = "--image cat.jpg" if record["transform"] else "--infer-data OUTPUT/data/test.bin"
    return f"job predict --infer-model OUTPUT/{folder} {images}"
