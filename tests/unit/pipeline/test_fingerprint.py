"""What changes a stage's key, and how the change is named."""

import hashlib
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_stages import CHAIN, make_manifest

import job
from job.errors import DataError
from job.host import Host, read_host
from job.manifest import Manifest
from job.pipeline.fingerprint import (
    Ingredients,
    changes,
    ingredients,
    key_of,
    library_versions,
    output_digest,
    source_digests,
)
from job.stages import STAGES
from job.stages.stage import Stage
from job.storage.digests import MISSING, Digests, hash_file

FIRST, SECOND, THIRD = CHAIN
VERSIONS = {"paddlepaddle": "3.2.2"}
# Part of every key: it sets threads and flags.
ENVIRONMENT = {"job.process", "job.process.environment"}


def collect(
    manifest: Manifest,
    stage: Stage = FIRST,
    *,
    upstream: dict[str, str] | None = None,
    versions: dict[str, str] = VERSIONS,
    host: Host | None = None,
) -> Ingredients:
    return ingredients(
        stage,
        manifest,
        upstream=upstream or {},
        digests=Digests(manifest.base / "none.json"),
        versions=versions,
        host=host or read_host(),
    )


def test_same_ingredients_same_key(tmp_path: Path) -> None:
    one, two = (collect(make_manifest(tmp_path)) for _ in range(2))
    assert key_of(one) == key_of(two)
    assert len(key_of(one)) == 64
    assert changes(one, two) == ()


def test_a_setting_of_another_stage_does_not_count(tmp_path: Path) -> None:
    before = collect(make_manifest(tmp_path))
    assert key_of(collect(make_manifest(tmp_path, "quantize.moving_rate=0.8"))) == key_of(before)


def test_settings_are_named(tmp_path: Path) -> None:
    before = collect(make_manifest(tmp_path))
    now = collect(make_manifest(tmp_path, "train.seed=7"))
    assert key_of(before) != key_of(now)
    assert changes(before, now) == ("train.seed changed",)


def test_files_are_named_by_content(tmp_path: Path) -> None:
    before = collect(make_manifest(tmp_path))
    weights = tmp_path / "weights.bin"
    os.utime(weights, ns=(1, 1))
    assert key_of(collect(make_manifest(tmp_path))) == key_of(before)
    weights.write_bytes(b"WEIGHTS")
    assert changes(before, collect(make_manifest(tmp_path))) == ("weights.bin changed",)


def test_a_run_may_be_moved(tmp_path: Path) -> None:
    keys = set()
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        keys.add(key_of(collect(make_manifest(tmp_path / name))))
    assert len(keys) == 1


def test_missing_file(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    (tmp_path / "weights.bin").unlink()
    assert collect(manifest)["files"] == {"weights.bin": MISSING}


def test_versions_upstream_and_source_are_named(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    before = collect(manifest, SECOND, upstream={"first": "a"})
    now = collect(
        manifest, SECOND, upstream={"first": "b"}, versions={"paddlepaddle": "3.3.0", "numpy": "2"}
    )
    before = {**before, "source": {"job.stages.qat": "x", "job.engine.old": "y"}}
    now = {**now, "source": {"job.stages.qat": "z"}}
    assert changes(before, now) == (
        "the output of first changed",
        "paddlepaddle 3.2.2 -> 3.3.0",
        "numpy unknown -> 2",
        "job.stages.qat changed",
        "job.engine.old changed",
    )
    assert "the output of first changed" not in changes(before, now, unknown=["first"])


def test_the_programs_version_does_not_count(tmp_path: Path) -> None:
    manifest = make_manifest(tmp_path)
    one, two = (collect(manifest, versions={**VERSIONS, "job": name}) for name in ("1", "2"))
    assert key_of(one) == key_of(two)


def test_host_counts_only_where_it_matters(tmp_path: Path) -> None:
    manifest, here = make_manifest(tmp_path), read_host()
    other = replace(here, cpu_model="Other CPU")
    assert key_of(collect(manifest, host=here)) == key_of(collect(manifest, host=other))
    before, now = (collect(manifest, THIRD, host=host) for host in (here, other))
    assert changes(before, now) == (f"CPU {here.cpu_model} -> Other CPU",)
    less = collect(manifest, THIRD, host=replace(here, flags=()))
    assert changes(before, less) == ("CPU flags changed",)


def test_output_digest_leaves_times_out() -> None:
    def digest(seconds: float, loss: float, metrics: str) -> str:
        record = {"loss": loss, "history": [{"step": 1, "images_per_second": seconds}]}
        return output_digest({"model.bin": "abc", "metrics.jsonl": metrics}, record)

    assert digest(1.0, 0.5, "x") == digest(2.0, 0.5, "y")
    assert digest(1.0, 0.5, "x") != digest(1.0, 0.6, "x")


def test_library_versions() -> None:
    versions = library_versions()
    assert versions["job"] == job.__version__
    assert versions.keys() == {
        "job",
        "python",
        "paddlepaddle",
        "paddleslim",
        "numpy",
        "pillow",
        "scikit-learn",
    }


# Packages whose source is part of a stage's key. An import that adds one makes users run the stage
# again after edits that cannot change its result: add the package here only if it can.
# Modules of job.data that read packed files.
_READING = {"packed", "packed_objects", "transforms"}
_INT8 = {"engine.compare", "engine.int8", "benchmark", "profile", "isa"}
_TASKS = {"tasks", "detection", "stats"}
_TRAINING = {"engine", "engine.inference", "engine.training", *_TASKS}
_PADDLE_OPENVINO = {"engine.conversion", "engine.paddle_openvino"}
_EXTRAS = {"engine.conversion", "engine.rewrites", "engine.openvino", "engine.onnxruntime"}
_OTHER_ENGINES = {*_EXTRAS, *_PADDLE_OPENVINO}
REACHED = {
    "prepare": {"data", "detection"},
    "baseline": {"data", "engine.weights", *_TRAINING},
    "calibrate": {"data", "engine.quantize", *_TRAINING},
    "qat": {"data", "engine.quantize", *_TRAINING},
    "convert": {"data", "engine.quantize", *_TRAINING},
    "int8": {"data", "engine.quantize", *_TRAINING, *_INT8, *_PADDLE_OPENVINO},
    "paddle_openvino": {
        "data", "engine", "engine.inference", "benchmark", "profile", "isa", *_TASKS,
        "engine.rewrites", *_PADDLE_OPENVINO,
    },
    "openvino": {"data", "engine", "engine.inference", *_TASKS, *_EXTRAS},
    "onnxruntime": {"data", "engine", "engine.inference", *_TASKS, *_EXTRAS},
    "accuracy": {"data", "engine", "engine.inference", *_TASKS, *_OTHER_ENGINES},
    "benchmark": {
        "benchmark", "profile", "isa", "stats",
        "engine", "engine.inference", "engine.compare", "engine.noop_model",
        *_OTHER_ENGINES,
    },
}  # fmt: skip


def package_of(module: str) -> str:
    """``engine.training`` for a module of the engine, ``data`` for one of another package."""
    parts = module.split(".")[1:]
    return ".".join(parts[:2] if parts[0] == "engine" else parts[:1])


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_packages_that_a_key_depends_on(stage: Stage) -> None:
    modules = source_digests(stage.run.__module__)
    assert {package_of(module) for module in modules} == {
        *REACHED[stage.name],
        "stages",
        "process",
    }


@pytest.mark.parametrize(
    ("stage", "packages"),
    [("convert", _READING), ("accuracy", _READING)],
)
def test_stages_that_read_prepared_images_do_not_reach_decoding(
    stage: str, packages: set[str]
) -> None:
    modules = source_digests(f"job.stages.{stage}")
    assert {name.split(".")[2] for name in modules if name.startswith("job.data.")} == packages


def test_source_follows_imports_without_importing() -> None:
    found = source_digests("job.stages.benchmark")
    assert {"job.benchmark.timer_main", "job.engine.openvino.convert"} <= found.keys()


def test_source_counts_modules_named_in_strings_and_relative_imports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "job"
    # Names that no module of the job has, which another test may have loaded.
    (package / "engine").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "engine" / "__init__.py").write_text("")
    (package / "engine" / "clock.py").write_text("import paddle\nfrom . import wheel\n")
    (package / "engine" / "wheel.py").write_text("raise RuntimeError('imported')\n")
    (package / "engine" / "unused.py").write_text("")
    (package / "bench.py").write_text("COMMAND = ['python', '-m', 'job.engine.clock']\n")
    monkeypatch.setattr(job, "__file__", str(package / "__init__.py"))
    expected = {"job.bench", "job.engine", "job.engine.clock", "job.engine.wheel"}
    assert source_digests("job.bench").keys() - ENVIRONMENT == expected


def test_imports_for_type_checkers_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "job"
    package.mkdir()
    (package / "timing_a.py").write_text("if TYPE_CHECKING:\n    from job import timing_b\n")
    (package / "timing_b.py").write_text("")
    monkeypatch.setattr(job, "__file__", str(package / "__init__.py"))
    assert source_digests("job.timing_a").keys() - ENVIRONMENT == {"job.timing_a"}


def test_unchanged_source_is_not_parsed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "job"
    package.mkdir()
    sound, broken = package / "timing_c.py", package / "timing_d.py"
    sound.write_text("from job import timing_e\n")
    broken.write_text("no python\n")
    monkeypatch.setattr(job, "__file__", str(package / "__init__.py"))
    before = {
        f"job.{path.stem}": hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (sound, broken)
    }
    assert source_digests("job.timing_d", before) == before
    # The earlier result of another stage does not count.
    assert "job.timing_d" not in source_digests("job.timing_c", {"job.timing_d": "0"})
    with pytest.raises(SyntaxError):
        source_digests("job.timing_d", before | {"job.timing_c": "0"})


class TestDigests:
    def settled(self, path: Path) -> Path:
        path.write_bytes(b"one")
        long_ago = time.time_ns() - 10**11
        os.utime(path, ns=(long_ago, long_ago))
        return path

    def test_remembered_by_size_and_time(self, tmp_path: Path) -> None:
        file = self.settled(tmp_path / "file")
        digests = Digests(tmp_path / "store.json")
        stamp = file.stat().st_mtime_ns
        before = digests.sha256(file)
        assert digests.changed
        file.write_bytes(b"two")
        os.utime(file, ns=(stamp, stamp))
        assert digests.sha256(file) == before
        os.utime(file, ns=(stamp + 1, stamp + 1))
        assert digests.sha256(file) == hash_file(file) != before

    def test_a_fresh_file_is_not_remembered(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.write_bytes(b"one")
        digests = Digests(tmp_path / "store.json")
        digests.sha256(file)
        assert not digests.changed

    @pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff"])
    def test_a_broken_store_only_costs_time(self, tmp_path: Path, content: bytes) -> None:
        store = tmp_path / "store.json"
        store.write_bytes(content)
        assert Digests(store).sha256(self.settled(tmp_path / "file"))

    def identify(self, path: Path) -> str:
        return Digests(path / "none").identify(path)

    def test_folder(self, tmp_path: Path) -> None:
        folder = tmp_path / "data"
        (folder / "cat").mkdir(parents=True)
        image = folder / "cat" / "1.png"
        image.write_bytes(b"image")
        before = self.identify(folder)
        assert before.startswith("folder:")
        assert self.identify(folder) == before
        os.utime(image, ns=(1, 1))
        touched = self.identify(folder)
        image.rename(folder / "cat" / "2.png")
        assert len({before, touched, self.identify(folder)}) == 3

    def test_folder_with_links(self, tmp_path: Path) -> None:
        target = tmp_path / "elsewhere"
        target.mkdir()
        (target / "1.png").write_bytes(b"image")
        folder = tmp_path / "data"
        folder.mkdir()
        (folder / "linked").symlink_to(target)
        (folder / "loop").symlink_to(folder)
        (folder / "broken").symlink_to(tmp_path / "nowhere")
        before = self.identify(folder)
        (target / "2.png").write_bytes(b"image")
        assert self.identify(folder) != before

    def test_unreadable(self, tmp_path: Path) -> None:
        # A name that is too long fails for root as well, which permissions do not.
        with pytest.raises(DataError, match=r"cannot read .*: File name too long"):
            self.identify(tmp_path / ("x" * 300))
