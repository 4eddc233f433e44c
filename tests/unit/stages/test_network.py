"""The files of a model, and the check of a given model before any stage runs."""

from pathlib import Path
from typing import Any

import pytest
from pir_program import op, program, save, value
from sample_manifest import document

from job.errors import DataError
from job.manifest import Manifest, parse
from job.stages.network import check_inference_model, model_files

RNN = op("1.rnn", [2], value(3, -1, 4))


def manifest(folder: Path, given: str) -> Manifest:
    body: dict[str, Any] = document(model__inference_model=given, model__name=None)
    return parse(body, "m.json", folder)


@pytest.mark.parametrize(
    "given", ["net", "net/inference", "net/inference.json", "net/inference.pdiparams"]
)
def test_a_model_of_paddle_3_is_two_files(tmp_path: Path, given: str) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net/config.json").write_text("{}")
    save(tmp_path / "net/inference", program())
    wanted = manifest(tmp_path, given)
    names = [path.name for path in model_files(wanted)]
    assert names == ["inference.json", "inference.pdiparams"]
    check_inference_model(wanted)


def test_the_legacy_program_has_priority(tmp_path: Path) -> None:
    save(tmp_path / "inference", program(RNN, last=3))
    (tmp_path / "inference.pdmodel").write_bytes(b"")
    wanted = manifest(tmp_path, "inference")
    assert model_files(wanted)[0].name == "inference.pdmodel"
    check_inference_model(wanted)


def test_an_unsupported_op_is_named(tmp_path: Path) -> None:
    save(tmp_path / "inference", program(RNN, last=3))
    with pytest.raises(DataError, match=r"pd_op\.rnn"):
        check_inference_model(manifest(tmp_path, "inference"))


@pytest.mark.parametrize("given", ["none", "s3://bucket/none"])
def test_a_missing_model_is_reported_elsewhere(tmp_path: Path, given: str) -> None:
    check_inference_model(manifest(tmp_path, given))
