import copy
import dataclasses
import io
import json
import subprocess
import sys
import types
import typing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sample_manifest import MINIMAL, check, document, faults

from job.cli.explain import explain
from job.errors import Fault, ManifestError, UsageError
from job.manifest import Manifest, entries, load, parse
from job.manifest.schema import keys

# Records


def _matches(value: Any, hint: Any) -> bool:
    if dataclasses.is_dataclass(hint):
        own = typing.get_type_hints(hint)
        return isinstance(value, hint) and all(
            _matches(getattr(value, name), kind) for name, kind in own.items()
        )
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is types.UnionType:
        return any(_matches(value, kind) for kind in arguments)
    if origin is tuple:
        each = arguments[0]
        long_enough = arguments[-1] is Ellipsis or len(value) == len(arguments)
        return type(value) is tuple and long_enough and all(_matches(item, each) for item in value)
    return (
        origin is not None
        or hint is Any
        or (isinstance(value, hint) and (hint not in (int, float) or type(value) is hint))
    )


def test_record_values_have_the_declared_types() -> None:
    body = document(benchmark__min_seconds=3, data__mean=[1], train__base_lr=1, train__epochs=2.0)
    manifest = check(body)
    assert _matches(manifest, Manifest)
    assert manifest.train.epochs == 2
    assert manifest.data.mean == (1.0,)


def test_a_matrix_becomes_records_and_a_manifest_for_each_entry() -> None:
    body = document(
        matrix=[
            {"name": "small", "set": {"model.width": 0.5, "/train/epochs": 3}},
            {"name": "large", "set": {"model.width": 2}, "published": {"int8_top1": 70.5}},
        ]
    )
    manifest = check(body, "train.seed=7")
    assert _matches(manifest, Manifest)
    assert manifest.matrix is not None
    assert manifest.matrix[1].published is not None
    assert manifest.matrix[1].published.int8_top1 == 70.5
    small, large = entries(manifest)
    assert (small.model.width, large.model.width) == (0.5, 2.0)
    assert (small.train.epochs, large.train.epochs) == (3, 1)
    assert small.train.seed == 7
    assert (small.name, large.name) == ("small", "large")
    assert (small.output, large.output) == ("runs/tiny/small", "runs/tiny/large")
    assert small.matrix is None


def test_every_fault_of_every_matrix_entry_is_listed() -> None:
    body = document(
        matrix=[
            {"name": "same", "set": {"train.epochs": -1, "model.nam": 1}},
            {"name": "same", "set": {"output": "elsewhere"}},
        ]
    )
    with pytest.raises(ManifestError, match="matrix") as caught:
        check(body)
    faults = [(fault.pointer, fault.message) for fault in caught.value.faults]
    assert [pointer for pointer, _ in faults].count("/matrix/0/set") == 2
    assert any(p == "/matrix/1/set" and "output" in text for p, text in faults)
    assert any(p == "/matrix" and " same " in text for p, text in faults)


# Defaults and what is resolved


def test_defaults_come_from_the_schema() -> None:
    manifest = check(MINIMAL)
    assert manifest.model.width == 1.0
    assert (manifest.baseline.train.epochs, manifest.train.epochs) == (0, 1)
    assert (manifest.baseline.train.base_lr, manifest.train.base_lr) == (0.1, None)
    assert manifest.train.schedule.milestones == (0.5, 0.75)
    assert manifest.train.freeze_bn_stats
    assert manifest.quantize.weight_quantize_type == "channel_wise_abs_max"
    assert manifest.benchmark.batch_sizes == (1, 50)
    assert (manifest.gates.max_top1_drop, manifest.gates.int8_matches_fake) == (1.0, 20)
    assert manifest.output == "runs/tiny"


def test_resolved_holds_every_key_and_parses_to_the_same() -> None:
    manifest = check({"$schema": "elsewhere.json", **MINIMAL}, "train.seed=7")
    resolved = json.loads(json.dumps(manifest.resolved))
    for key in keys():
        node: Any = resolved
        if key.pointer != "/$schema":
            for name in key.pointer.split("/")[1:]:
                # A nullable object that is null has no keys.
                node = None if node is None else node[name]
    assert "$schema" not in resolved
    assert check(resolved) == manifest


def test_equal_settings_resolve_to_equal_json() -> None:
    one = check(document(train__base_lr=1, train__epochs=2.0))
    other = check(document(train__epochs=2, train__base_lr=1.0))
    assert json.dumps(one.resolved) == json.dumps(other.resolved)


def test_document_is_left_as_it_is() -> None:
    body = document(data__mean=[0.1, 0.2, 0.3])
    before = copy.deepcopy(body)
    manifest = check(body, "data.mean.0=0.9", "train.epochs=4")
    assert body == before
    assert manifest.data.mean == (0.9, 0.2, 0.3)


def test_paths_are_relative_to_the_manifests_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = json.dumps(MINIMAL)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "manifest.json").write_text(text)
    from_file = load("sub/manifest.json")
    assert from_file.path("images/a.png") == tmp_path / "sub" / "images" / "a.png"
    assert from_file.path("/abs/a.png") == Path("/abs/a.png")
    assert load("-", stdin=io.StringIO(text)).base == tmp_path


# Faults


def test_all_faults_are_listed_in_one_go_in_the_manifests_order() -> None:
    body = {
        "version": 1,
        "name": "not a name",
        "epochs": 3,
        "model": {"name": "resnet_50", "inputshape": [3], "classes": 1},
        "data": {"format": "imagenet_list", "train_dir": "t", "mean": [0.1, 0.2]},
        "quantize": {"quantize_op_types": ["conv2d", "elmentwise_add"], "weight_bits": 4},
        "train": {"epochs": "3", "schedule": {"milestones": [0.7, 0.2]}},
    }
    found = faults(body)
    assert list(found) == [
        "/name",
        "/epochs",
        "/model/name",
        "/model/inputshape",
        "/model/classes",
        "/model/input_shape",
        "/data",
        "/data/train_dir",
        "/quantize/quantize_op_types/1",
        "/quantize/weight_bits",
        "/train/epochs",
        "/train/schedule/milestones",
    ]
    assert found["/train/epochs"].message.endswith('found "3"')
    assert found["/quantize/quantize_op_types/1"].message.endswith('found "elmentwise_add"')
    assert found["/quantize/quantize_op_types/1"].suggestion == "elementwise_add"
    assert found["/model/input_shape"].message.startswith("missing; expected an array of 3 values")


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("epochs", "/train/epochs"),
        ("train.epochs", "/train/epochs"),
        ("quantize_op_types", "/quantize/quantize_op_types"),
        ("weight_quantise_type", "/quantize/weight_quantize_type"),
        ("gate", "gates"),
        ("Model", "model"),
        ("zzz", ""),
    ],
)
def test_unknown_key_suggests(key: str, suggestion: str) -> None:
    found = faults(document(**{key: 1}))
    assert found[f"/{key}"] == Fault(f"/{key}", "unknown key", suggestion)


@pytest.mark.parametrize(
    ("place", "suggestion"),
    [
        ("train__lr", "base_lr"),
        ("train__learning_rate", "base_lr"),
        ("lr", "/train/base_lr"),
        ("data__normalize", "mean"),
        ("batch_size", "/train/batch_size"),
        ("benchmark__batch_size", "batch_sizes"),
        ("quantize__batch_size", "/train/batch_size"),
        ("model__num_classes", "classes"),
    ],
)
def test_a_sibling_is_suggested_before_a_key_elsewhere(place: str, suggestion: str) -> None:
    found = faults(document(**{place: 1}))
    assert found["/" + place.replace("__", "/")].suggestion == suggestion


@pytest.mark.parametrize(
    ("place", "value", "suggestion"),
    [
        ("quantize__post_algo", "kl", "KL"),
        ("train__optimizer", "Adam", "adam"),
        ("model__name", "mobilenetv1", "mobilenet_v1"),
        ("data__format", "imagenet", "imagenet_list"),
        ("train__optimizer", "zzz", ""),
    ],
)
def test_wrong_value_suggests(place: str, value: str, suggestion: str) -> None:
    found = faults(document(**{place: value}))
    assert found["/" + place.replace("__", "/")].suggestion == suggestion


def test_a_suggestion_replaces_a_long_list_of_values() -> None:
    near = faults(document(model__name="resnet5o"))["/model/name"]
    assert near.suggestion == "resnet50"
    assert "vgg16" not in near.message
    assert "job explain model.name" in near.message
    assert "vgg16" in explain("model.name")[0].allowed
    far = faults(document(model__name="zzz"))["/model/name"]
    assert far.suggestion == ""
    assert "vgg16" in far.message
    assert "sgd" in faults(document(train__optimizer="Adam"))["/train/optimizer"].message


@pytest.mark.parametrize("source", ["s3://nobucket", "s3://nobucket/"])
def test_an_uri_without_key_is_no_manifest(source: str) -> None:
    with pytest.raises(UsageError, match=rf"^{source}: .*s3://BUCKET/KEY") as caught:
        load(source)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("train__epochs", 1.5, "expected an integer of at least 0 and at most 100000, found 1.5"),
        ("train__epochs", True, "found true"),
        ("train__max_iters", -1, "of at least 0 and at most 1000000000, or null, found -1"),
        ("train__base_lr", 0, "more than 0 and at most 100, or null, found 0"),
        ("train", None, "expected an object, found null"),
        ("model__input_shape", [3, 32], "3 values ([channels, height, width]), each an integer"),
        ("model__input_shape", [32, 32, 3], "channels first, found [32, 32, 3]"),
        ("benchmark__threads", [1, 1], "array of 1 or more distinct values"),
        ("quantize__quantize_op_types", [], "found []"),
        ("model__weights_sha256", "A" * 64, "64 hexadecimal digits in lower case"),
        ("model__weights_sha256", "a" * 64 + "\n", "64 hexadecimal digits"),
        ("model__callable", "package.module", "a string (package.module:function), or null"),
        ("model__callable", "package.module:f\n", "a string (package.module:function)"),
        ("output", "", 'found ""'),
        ("name", "x" * 200, '"xxxxx'),
        ("train__base_lr", float("nan"), "found nan"),
        ("quantize__onnx_format", False, "expected true, found false"),
        (
            "quantize__activation_quantize_type",
            "range_abs_max",
            'expected moving_average_abs_max, found "range_abs_max"',
        ),
        ("quantize__window_size", 100, "expected 10000, found 100"),
    ],
)
def test_wrong_value_says_what_is_expected_and_found(place: str, value: Any, message: str) -> None:
    found = faults(document(**{place: value}))
    assert message in found["/" + place.replace("__", "/")].message
    assert len(found) == 1


def test_channels_last_is_named_beside_a_fault_of_the_network() -> None:
    found = faults(document(model__name="resnet5o", model__input_shape=[32, 32, 3]))
    assert set(found) == {"/model/name", "/model/input_shape"}


def test_a_fault_of_a_default_names_the_default() -> None:
    written = document(model__classes=1)
    assert "default" not in faults(written)["/model/classes"].message
    del written["model"]["classes"]
    assert "default" in faults(written)["/model/classes"].message
    with pytest.raises(ManifestError, match="/model/classes") as caught:
        parse(written, "m.json", Path(), ["model.classes=1"])
    assert "default" not in caught.value.faults[0].message


@pytest.mark.parametrize("version", ["1", None, True, 1.5])
def test_a_version_of_another_type_hides_no_fault(version: Any) -> None:
    found = faults(document(version=version, what="ever"))
    assert set(found) == {"/version", "/what"}
    assert found["/version"].message.endswith(f"found {json.dumps(version)}")


@pytest.mark.parametrize("version", [2, 0])
def test_another_version_is_the_only_fault(version: Any) -> None:
    found = faults({"version": version, "what": "ever"})
    assert list(found) == ["/version"]
    assert found["/version"].message.startswith("expected 1, ")
    assert found["/version"].message.endswith(f"found {json.dumps(version)}")


def test_missing_version_is_one_fault_among_others() -> None:
    assert list(faults({})) == ["/version", "/name", "/model", "/data"]


def test_unprintable_keys_are_escaped() -> None:
    found = faults(document(**{"bad\ud800\nkey": "\ud801"}))
    assert list(found) == ["/bad\\ud800\\nkey"]


# Arbitrary input

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=8,
)
PLACES = st.sampled_from([key.pointer for key in keys()])


@settings(max_examples=40, deadline=None, derandomize=True)
@given(body=JSON_VALUES, changes=st.dictionaries(PLACES, JSON_VALUES, max_size=3))
def test_any_json_gives_a_manifest_or_its_faults(body: Any, changes: dict[str, Any]) -> None:
    for candidate in (body, _changed(changes)):
        try:
            manifest = check(candidate)
        except ManifestError as error:
            assert error.faults
            str(error).encode()
        else:
            assert check(manifest.resolved) == manifest


def _changed(changes: dict[str, Any]) -> dict[str, Any]:
    out = copy.deepcopy(MINIMAL)
    for place, value in changes.items():
        node: Any = out
        *parents, last = place.split("/")[1:]
        for name in parents:
            node = node.setdefault(name, {}) if isinstance(node, dict) else {}
        if isinstance(node, dict):
            node[last] = value
    return out


@settings(max_examples=60, deadline=None, derandomize=True)
@given(text=st.text(alphabet='{}[]":,\\ae1.-NIy\n ', max_size=30))
def test_any_text_gives_a_manifest_or_its_faults(text: str) -> None:
    with pytest.raises(ManifestError, match=r"^-: \d+ fault"):
        load("-", stdin=io.StringIO(text))


def test_import_is_light() -> None:
    heavy = ["jsonschema", "rich", "typer", "paddle", "numpy"]
    code = f"import sys, job.manifest.load; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# Forbidden content

SECRETS = ("aws_secret_access_key", "accessKey", "password", "sessionToken", "api-key")


@pytest.mark.parametrize("key", SECRETS)
def test_a_key_that_looks_like_a_secret_is_refused_with_the_reason(key: str) -> None:
    found = faults(document(**{key: "CANARY"}))
    assert "secret" in found[f"/{key}"].message
    assert "CANARY" not in str(found[f"/{key}"])


@pytest.mark.parametrize(
    "text", ["AKIAIOSFODNN7CANARY0", "https://me:CANARY@host/", "s3://a:CANARY@b/k"]
)
@pytest.mark.parametrize("place", ["model__weights", "data__format", "train__seed", "name"])
def test_a_value_that_looks_like_a_secret_is_never_shown(place: str, text: str) -> None:
    found = faults(document(**{place: text}))
    assert "secret" in found["/" + place.replace("__", "/")].message
    assert not any("CANARY" in str(fault) for fault in found.values())


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "\x1b[2J", "\ud800", "a\x7f"])
def test_text_that_cannot_be_printed_is_refused(text: str) -> None:
    found = faults(document(model__weights=text))
    assert "U+" in found["/model/weights"].message


def test_a_name_that_no_file_can_have_is_refused() -> None:
    found = faults(document(data__root="x" * 256))
    assert "255 bytes" in found["/data/root"].message
    assert "found 256 bytes" in found["/data/root"].message


def test_a_manifest_that_never_ends_is_not_read_on() -> None:
    with pytest.raises(ManifestError, match=r"1,000,000 bytes"):
        load("/dev/zero")


def test_no_more_faults_are_told_than_anybody_reads() -> None:
    body = document(**{f"unknown{number}": 1 for number in range(20_000)})
    assert len(faults(body)) <= 300


def test_the_home_of_nobody_is_a_name_like_any_other() -> None:
    found = check(document(model__weights="~nobody-at-all/w.pdparams"))
    assert found.path("~nobody-at-all/w") == Path("/base/~nobody-at-all/w")
