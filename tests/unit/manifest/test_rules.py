from typing import Any

import pytest
from sample_manifest import check, document, faults

from job.manifest.rules import RULES
from job.manifest.schema import keys

DIGITS = {"format": "digits", "mean": [0.5], "std": [0.5]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"model__name": None}, {"/model": "found none"}),
        ({"model__callable": "a.b:c"}, {"/model": "found name and callable"}),
        ({"model__weights_sha256": "0" * 64}, {"/model/weights_sha256": "/model/weights "}),
        (
            {"model__weights": "w", "model__pretrained": True, "model__name": "resnet18"},
            {"/model/pretrained": "/model/weights "},
        ),
        ({"model__pretrained": True}, {"/model/pretrained": "weights for convnet"}),
        (
            {"model__name": None, "model__callable": "a:b", "model__pretrained": True},
            {"/model/pretrained": "/model/name"},
        ),
        ({"data__train_list": "l"}, {"/data/train_list": "imagenet_list"}),
        ({"data__train_dir": None}, {"/data": "expected train_dir, val_dir or both"}),
        (
            {"data__train_dir": None, "data__selection_dir": "s"},
            {"/data": "expected train_dir, val_dir or both"},
        ),
        (
            {"data": {**DIGITS, "val_file": "v"}},
            {"/data/val_file": "format packed, but /data/format is digits"},
        ),
        ({"data": {**DIGITS, "root": "r"}}, {"/data/root": "expected null"}),
        ({"data": DIGITS, "model__classes": 9}, {"/model/classes": "at least 10"}),
        ({"data__mean": [0.5, 0.5]}, {"/data/mean": "1 or 3 values"}),
        (
            {"model__input_shape": [1, 8, 8]},
            {"/data/mean": "expected 1 value,", "/data/std": "found 3"},
        ),
        (
            {
                "model__name": "resnet18",
                "model__input_shape": [1, 32, 32],
                "data__mean": [0.5],
                "data__std": [0.5],
            },
            {"/model/input_shape": "for resnet18, found 1"},
        ),
        (
            {"model__name": "lenet"},
            {"/model/input_shape": "for lenet, found 3"},
        ),
        (
            {"model__name": "densenet121", "model__width": 0.5},
            {"/model/width": "expected 1 for densenet121, found 0.5"},
        ),
        ({"data__resize_short": 16}, {"/data/resize_short": "at least 32"}),
        (
            {"data__resize_short": 47, "model__input_shape": [3, 32, 48]},
            {"/data/resize_short": "at least 48"},
        ),
        (
            {"model__random_weights": True, "model__weights": "w"},
            {"/model/random_weights": "/model/weights "},
        ),
        (
            {
                "model__random_weights": True,
                "model__name": "resnet18",
                "model__pretrained": True,
            },
            {"/model/random_weights": "/model/pretrained "},
        ),
        (
            {
                "model__random_weights": True,
                "model__name": None,
                "model__inference_model": "m",
            },
            {"/model/random_weights": "/model/inference_model "},
        ),
        ({"data__augment__scale": [1, 0.1]}, {"/data/augment/scale": "ascending"}),
        ({"data__augment__ratio": [2, 1]}, {"/data/augment/ratio": "ascending"}),
        (
            {"train__schedule__milestones": [0.5, 0.5]},
            {"/train/schedule/milestones": "ascending values, found [0.5, 0.5]"},
        ),
        (
            {"baseline__train__schedule__milestones": [0.5, 0.4]},
            {"/baseline/train/schedule/milestones": "ascending"},
        ),
        (
            {"quantize": {"strategy": "post", "weight_quantize_type": "range_abs_max"}},
            {"/quantize/weight_quantize_type": "for strategy post"},
        ),
        (
            {"quantize": {"strategy": "post", "pact": True}},
            {"/quantize/pact": "strategy post"},
        ),
        (
            {"quantize": {"calibrate": False}, "train__epochs": 0},
            {"/quantize/calibrate": "/train "},
        ),
        (
            {"quantize": {"calibrate": False, "scale_trainable": False}, "train__max_iters": 9},
            {"/quantize/calibrate": "/quantize/scale_trainable is false"},
        ),
        (
            {
                "data": {"format": "synthetic", "root": "r"},
                "baseline__train__epochs": 1,
                "baseline__train__max_iters": 9,
                "quantize__fallback": {"max_top1_drop": 0.3},
            },
            {
                "/data/root": "format synthetic",
                "/baseline/train/epochs": "expected 0 for synthetic images",
                "/baseline/train/max_iters": "expected null or 0",
                "/train/max_iters": "expected 0 for synthetic images",
                "/quantize/fallback": "expected null",
            },
        ),
    ],
)
def test_rules(changes: dict[str, Any], expected: dict[str, str]) -> None:
    found = faults(document(**changes))
    assert set(found) == set(expected)
    for place, message in expected.items():
        assert message in found[place].message


def test_key_of_another_format_suggests_its_counterpart() -> None:
    assert faults(document(data__val_list="l"))["/data/val_list"].suggestion == "val_dir"


def test_rules_and_schema_faults_are_listed_together() -> None:
    found = faults(document(model__weights_sha256="0" * 64, train__epochs=-1))
    assert set(found) == {"/model/weights_sha256", "/train/epochs"}


def test_rules_name_keys_that_exist() -> None:
    known = {key.pointer for key in keys()}
    assert {place for _, places in RULES for place in places} <= known


class TestStorage:
    @pytest.mark.parametrize(
        ("endpoint", "output"),
        [
            ("http://127.0.0.1:5000", "s3://bkt/runs/a"),
            ("https://minio.example.org", "s3://bkt"),
            ("http://[::1]:9/base", "runs/a"),
        ],
    )
    def test_taken(self, endpoint: str, output: str) -> None:
        manifest = check(document(storage={"endpoint_url": endpoint}, output=output))
        assert (manifest.storage.endpoint_url, manifest.output) == (endpoint, output)

    @pytest.mark.parametrize("url", ["minio:9000", "s3://b", "http://", "http://a b", "http://a?b"])
    def test_no_endpoint(self, url: str) -> None:
        found = faults(document(storage={"endpoint_url": url}))
        assert "expected http://HOST:PORT" in found["/storage/endpoint_url"].message

    def test_a_password_in_the_endpoint_is_refused_and_not_shown(self) -> None:
        found = faults(document(storage={"endpoint_url": "http://me:canary@host:9000"}))
        assert "secret" in found["/storage/endpoint_url"].message
        assert "canary" not in str(found)

    @pytest.mark.parametrize(
        "key", ["secret_access_key", "access_key_id", "accessKey", "password", "session_token"]
    )
    @pytest.mark.parametrize("place", ["storage", "data"])
    def test_secrets_do_not_belong_here(self, place: str, key: str) -> None:
        found = faults(document(**{f"{place}__{key}": "canary"}))
        assert "secret" in found[f"/{place}/{key}"].message
        assert "canary" not in str(found)

    def test_nor_do_they_by_an_override(self) -> None:
        found = faults(document(), "storage.secret_access_key=canary")
        assert "canary" not in str(found)

    @pytest.mark.parametrize("output", ["s3://B/a", "s3://bkt/../a", "http://bkt/a", "gs://bkt/a"])
    def test_no_output(self, output: str) -> None:
        assert set(faults(document(output=output))) == {"/output"}
