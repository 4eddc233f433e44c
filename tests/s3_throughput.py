"""Measure how fast training images are read from S3, compared with the local disk.

``python tests/s3_throughput.py`` generates photographs of ImageNet's size and serves them on the
loopback interface. It prints the decoded and augmented images/s of each way to store them: on the
local disk, as objects, as members of tar files; for S3 with an empty and with a full cache.
The ways take turns, so that other load on the machine affects all of them.

With ``--gets`` it compares boto3's ``get_object`` with the job's own GET instead: requests a second
of one thread, and CPU time per request, for objects of 4 KB and of 100 KB.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from moto_server import CREDENTIALS, S3Server, served
from PIL import Image, ImageFilter

from job.data.decoding.pool import DecodePool
from job.data.s3.images import remote_of
from job.data.sources import BadImage
from job.data.splits import split
from job.data.transforms import Augment, Evaluate
from job.manifest import Manifest, parse
from job.pipeline.fetch_inputs import localized
from job.storage.s3.client import S3Settings, make_client, make_session
from job.storage.s3.fast_get import FastGet

SIZE = (500, 375)
CLASSES = 4
BATCH = 64
WARM_UP = 32
GETS = 300


def draw(root: Path, images: int) -> None:
    """Write photographs: noise at every scale, as JPEG of some 100 KB."""
    random = np.random.default_rng(0)
    for number in range(images):
        folder = root / f"class{number % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
        picture = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(1.2))
        picture.save(folder / f"{number:05d}.jpg", quality=92)


def pack(folder: Path, shards: Path, each: int = 100) -> None:
    """Put images into tar files."""
    shards.mkdir()
    paths = sorted(folder.rglob("*.jpg"))
    for start in range(0, len(paths), each):
        with tarfile.open(shards / f"{start // each:03d}.tar", "w") as tar:
            for path in paths[start : start + each]:
                tar.add(path, path.relative_to(folder.parent))


@contextmanager
def static(root: Path) -> Iterator[str]:
    """Serve a folder by the small, fast server."""
    command = [sys.executable, str(Path(__file__).with_name("static_s3.py")), str(root)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def manifest(root: str, endpoint: str | None, scratch: Path, cache_gib: float) -> Manifest:
    """The manifest of a data set of class folders."""
    document = {
        "version": 1,
        "name": "throughput",
        "model": {"name": "resnet18", "classes": CLASSES, "input_shape": [3, 224, 224]},
        "data": {"format": "class_folders", "root": root, "train_dir": "train"},
        "storage": {
            "endpoint_url": endpoint,
            "addressing": "path",
            "scratch": str(scratch),
            "cache_gib": cache_gib,
        },
    }
    return parse(document, "throughput", Path.cwd())


@dataclass(frozen=True)
class Speed:
    """Decoded and augmented training images/s, and CPU time per image."""

    images_per_second: float
    cpu_ms: float


def cpu_seconds() -> float:
    """CPU time of this process and of its child processes that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def measured(wanted: Manifest, workers: int) -> Speed:
    """Read an epoch; the time starts after the processes have read the warm-up images."""
    cpu = cpu_seconds()
    with localized(wanted, lambda text: None) as ready:
        part = split(
            ready.data, CLASSES, (3, 224, 224), ready.path, Path("none"), remote=remote_of(ready)
        ).train
        order = np.random.default_rng(1).permutation(part.indices).tolist()
        augment = Augment(Evaluate((224, 224)))
        with DecodePool(part.source, augment, seed=0, workers=workers, ahead=2 * BATCH) as pool:
            for outcome in pool.decode(0, order[:WARM_UP]):
                assert not isinstance(outcome, BadImage)
            started = time.perf_counter()
            for outcome in pool.decode(0, order[WARM_UP:]):
                assert not isinstance(outcome, BadImage)
            seconds = time.perf_counter() - started
    count = len(order) - WARM_UP
    return Speed(count / seconds, 1000 * (cpu_seconds() - cpu) / len(order))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=700)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--moto", action="store_true", help="measure moto's server too")
    parser.add_argument("--gets", action="store_true", help="compare single GET requests instead")
    options = parser.parse_args()
    os.environ.update(CREDENTIALS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.gets:
            compare_gets(folder, options.rounds)
            return
        draw(folder / "served/images/train", options.images)
        pack(folder / "served/images/train", folder / "served/shards")
        with static(folder / "served") as fast, served() as slow:
            measure(folder, fast, slow, options)


def compare_gets(folder: Path, rounds: int) -> None:
    """Compare ways to read an object, in turns; the figures are medians over the rounds."""
    for size in (4_000, 100_000):
        path = folder / "served/bucket" / str(size)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    with static(folder / "served") as url:
        session = make_session()
        settings = S3Settings(endpoint_url=url, region="us-east-1", addressing="path")
        client = make_client(settings, session=session)
        ways = {"boto3": client.get_object, "FastGet": FastGet(client, session)}
        for size in (4_000, 100_000):
            costs: dict[str, list[tuple[float, float]]] = {way: [] for way in ways}
            for number in range(1 + rounds):
                for way, get in ways.items():
                    cost = cost_of_gets(get, str(size))
                    if number:  # the first round opens connections
                        costs[way].append(cost)
            for way, rows in costs.items():
                wall, cpu = (statistics.median(column) for column in zip(*rows, strict=True))
                faster = statistics.median(
                    boto3[0] / one[0] for boto3, one in zip(costs["boto3"], rows, strict=True)
                )
                print(
                    f"  {size:7,} bytes, {way:8} {1 / wall:6.0f} GETs/s, {1000 * cpu:.2f} ms CPU "
                    f"per GET, {faster:.2f} times as fast as boto3"
                )


def cost_of_gets(get: Callable[..., Mapping[str, Any]], key: str) -> tuple[float, float]:
    """Return seconds of wall time and of CPU time per GET."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(GETS):
        get(Bucket="bucket", Key=key)["Body"].read()
    return (time.perf_counter() - wall) / GETS, (time.process_time() - cpu) / GETS


def measure(folder: Path, fast: str, slow: S3Server, options: argparse.Namespace) -> None:
    """Measure the ways in turns; figures are medians, ratios are medians over the rounds."""
    local = manifest(str(folder / "served/images"), None, folder, 1)
    ways = {
        "objects, cache empty": manifest("s3://images", fast, folder / "a", 1),
        "objects, cache full": manifest("s3://images", fast, folder / "b", 1),
        "objects, no room in the cache": manifest("s3://images", fast, folder / "c", 1e-4),
        "tar shards, cache empty": manifest("s3://shards", fast, folder / "d", 1),
        "tar shards, only ranges": manifest("s3://shards", fast, folder / "e", 0.001),
    }
    if options.moto:
        upload(folder / "served/images", slow)
        ways["objects, moto's server"] = manifest("s3://images", slow.url, folder / "f", 1)
    # This fills the full cache, and indexes the shards.
    for wanted in ways.values():
        measured(wanted, options.workers)
    speeds: dict[str, list[tuple[Speed, Speed]]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way, wanted in ways.items():
            if not way.endswith("full"):
                set_aside(wanted, folder / "aside" / f"{number}-{way}")
            speeds[way].append(
                (measured(local, options.workers), measured(wanted, options.workers))
            )
    print(f"images/s with {options.workers} decoding process(es), {options.images} images")
    for way, pairs in speeds.items():
        disk, s3 = (
            statistics.median(each.images_per_second for each in column)
            for column in zip(*pairs, strict=True)
        )
        ratio = statistics.median(
            s3_.images_per_second / disk_.images_per_second for disk_, s3_ in pairs
        )
        cost = statistics.median(s3_.cpu_ms - disk_.cpu_ms for disk_, s3_ in pairs)
        print(
            f"  {way:30} {s3:7.1f}, local disk {disk:7.1f}, ratio {ratio:.2f}, "
            f"CPU {cost:+.2f} ms an image"
        )


def set_aside(wanted: Manifest, aside: Path) -> None:
    """Empty a cache of images; descriptions and shards stay.

    The images are moved and not removed. ext4 checks each inode that was freed in the last minutes
    before it allocates another, which would slow down the next measurement.
    """
    blobs = Path(str(wanted.storage.scratch)) / "inputs/blobs"
    if blobs.exists():
        aside.parent.mkdir(exist_ok=True)
        blobs.rename(aside)


def upload(folder: Path, server: S3Server) -> None:
    """Put a folder into moto's server."""
    client = make_client(replace(S3Settings(), endpoint_url=server.url))
    client.create_bucket(Bucket="images")
    for path in folder.rglob("*.jpg"):
        key = str(path.relative_to(folder))
        client.put_object(Bucket="images", Key=key, Body=path.read_bytes())


if __name__ == "__main__":
    main()
