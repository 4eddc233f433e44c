"""What `job k8s render` prints, run; affinity and all else of scheduling apart."""

from pathlib import Path

import pytest
import yaml
from containers import IMAGE
from pods import run_pod
from tiny_run import job, record_of, report_of, write_manifest

from job.host import read_host

pytestmark = pytest.mark.container

MODELS = ("fp32/model.pdiparams", "qat_fake/model.pdiparams", "int8/model.pdiparams")


def test_the_pod_leaves_what_a_run_here_leaves(needs_vnni: None, tmp_path: Path) -> None:
    write_manifest(tmp_path)
    job("run", "m.json", cwd=tmp_path)
    cpus = ("--cpus", str(read_host().usable_cores), "--memory", "4Gi")
    shown = job("k8s", "render", "m.json", "--claim", "c", "--image", IMAGE, *cpus, cwd=tmp_path)
    config, made = yaml.safe_load_all(shown.out)
    files = {config["metadata"]["name"]: config["data"]}
    (tmp_path / "pod").mkdir()
    done, last_word = run_pod(made["spec"]["template"]["spec"], files, tmp_path / "pod")
    assert done.code == 0, done.err
    here, there = tmp_path / "out", tmp_path / "pod/work/out"
    for model in MODELS:
        assert (there / model).read_bytes() == (here / model).read_bytes(), model
    assert record_of(there, "accuracy") == record_of(here, "accuracy")
    report = report_of(there)
    assert report["host"]["memory_bytes"] == 4 << 30
    assert "INT8" in last_word


def test_the_manifest_comes_from_the_config_map(tmp_path: Path) -> None:
    data = {"format": "class_folders", "train_dir": "none"}
    write_manifest(tmp_path, data=data)
    shown = job("k8s", "render", "m.json", "--claim", "c", "--image", IMAGE, cwd=tmp_path)
    config, made = yaml.safe_load_all(shown.out)
    pod = made["spec"]["template"]["spec"]
    pod["containers"][0]["args"].append("--allow-slow-isa")
    done, last_word = run_pod(pod, {config["metadata"]["name"]: config["data"]}, tmp_path)
    assert done.code == 4, done.err
    assert last_word.startswith("exit 4: ")
    assert "/work/none" in last_word
