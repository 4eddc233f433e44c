"""The commands of docs/s3.md for inputs in S3, as they stand, on small data."""

import io
import json
import pickle
import re
import shlex
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from moto_server import S3Server
from tiny_run import draw_images, job

from job.data import packed

pytestmark = pytest.mark.e2e

ROOT = Path(__file__).parents[2]
S3_PAGE = (ROOT / "docs/s3.md").read_text()
MANIFESTS = (ROOT / "docs/manifests.md").read_text()


@pytest.fixture
def storage(s3_server: S3Server, tmp_path: Path) -> None:
    """The objects that the commands name."""
    client = s3_server.client
    for name in ("datasets", "jobs"):
        client.create_bucket(Bucket=name)
    for split in ("train", "test"):
        draw_images(tmp_path / "cifar10" / split, 8 if split == "train" else 2, classes=10)
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.add(tmp_path / "cifar10", "cifar10")
    client.put_object(Bucket="datasets", Key="cifar10.tar.gz", Body=buffer.getvalue())
    (text,) = re.findall(r"```json\n(.*?)```", MANIFESTS, re.DOTALL)
    weights = pickle.dumps({"w": np.zeros(1, "float32")})
    files = {"manifest.json": text.encode(), "weights/ResNet50.pdparams": weights}
    names = draw_images(tmp_path / "val", 12)
    for name in names:
        files[f"imagenet/{name}"] = (tmp_path / "val" / name).read_bytes()
    for start, split in ((0, "train"), (1, "val")):
        lines = [f"{name} {name[5]}" for name in names[start::2]]
        files[f"imagenet/{split}_list.txt"] = "\n".join(lines).encode()
    for key, content in files.items():
        client.put_object(Bucket="jobs", Key=f"resnet50/{key}", Body=content)


def commands() -> list[list[str]]:
    (block,) = (
        text for text in re.findall(r"```sh\n(.*?)```", S3_PAGE, re.DOTALL) if "s3://jobs" in text
    )
    return [shlex.split(line)[1:] for line in block.splitlines()]


@pytest.mark.usefixtures("storage")
def test_the_readmes_commands(tmp_path: Path) -> None:
    cifar10, checked, planned, packing = commands()
    scratch = {"JOB_SCRATCH": str(tmp_path / "scratch")}
    cifar10[1] = str(ROOT / cifar10[1])
    # No further: the images are not worth training on.
    done = job(*cifar10, "--until", "prepare", cwd=tmp_path, environment=scratch)
    record = json.loads((tmp_path / "runs/cifar10/data/stage.json").read_bytes())["record"]
    assert record["splits"]["test"]["images"] == 20
    as_json = ("--until", "prepare", "--log-format", "json")
    again = job(*cifar10, *as_json, cwd=tmp_path, environment=scratch)
    assert again.of("stage_reused") == ["prepare"]
    assert "s3://jobs/resnet50/manifest.json" in job(*checked, cwd=tmp_path).out
    done = job(*planned, cwd=tmp_path, environment=scratch)
    assert "s3://jobs/resnet50/weights/ResNet50.pdparams" in done.out
    assert "s3://jobs/resnet50/imagenet" in done.out
    assert not (tmp_path / "runs/resnet50").exists()
    done = job(*packing, cwd=tmp_path, environment=scratch)
    assert "18 images" in done.out
    assert "3x224x224" in done.out
    assert len(packed.open_packed(tmp_path / "full_val.bin", (3, 224, 224)).labels) == 18


def test_a_missing_input_is_told_with_bucket_and_key(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.bucket()
    missing = job("run", f"{bucket}m.json", cwd=tmp_path, expect=4)
    assert f"error: {bucket}m.json on {s3_server.url}: " in missing.err
    root = ("--set", f"data.root={bucket}none.tar.gz")
    done = job("run", ROOT / "manifests/cifar10.json", *root, cwd=tmp_path, expect=4)
    assert f"error: {bucket}none.tar.gz on {s3_server.url}: " in done.err


@pytest.mark.full
def test_secrets_are_shown_nowhere(s3_server: S3Server, tmp_path: Path) -> None:
    bucket = s3_server.bucket()
    keys = {"AWS_ACCESS_KEY_ID": "CANARYID", "AWS_SECRET_ACCESS_KEY": "CANARYKEY"}
    body = {"version": 1, "name": "x", "aws_secret_access_key": "CANARYKEY"}
    body |= {"model": {"name": "convnet", "classes": 10, "input_shape": [1, 8, 8]}}
    body |= {"data": {"format": "digits"}}
    s3_server.store.put(bucket / "m.json", json.dumps(body).encode())
    done = job("run", f"{bucket}m.json", cwd=tmp_path, expect=2, environment=keys)
    assert "/aws_secret_access_key: " in done.err
    gone = job("run", f"{bucket}none.json", cwd=tmp_path, expect=4, environment=keys)
    assert "CANARY" not in done.out + done.err + gone.out + gone.err


@pytest.mark.full
def test_images_come_from_s3_about_as_fast_as_from_the_disk(
    tell: Callable[[str], None],
) -> None:
    """A short round of the script that measures it; its figures are for the eye.

    Other work on the machine moves the ratio by a third, so only what breaks the way there shows.
    """
    script = ROOT / "tests/s3_throughput.py"
    command = [sys.executable, str(script), "--images", "200", "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    tell(done.stdout.rstrip())
    ratios = [float(found) for found in re.findall(r"ratio (\d+\.\d+)", done.stdout)]
    assert len(ratios) == 5
    assert min(ratios) > 0.4
