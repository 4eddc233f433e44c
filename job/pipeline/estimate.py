"""Estimates how long the stages of a run take, from their work and the speed of the machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from job.benchmark.rows import OTHER_ENGINES
from job.host import Host
from job.manifest import Manifest
from job.manifest.spec import TrainSpec
from job.pipeline.network_work import work_of
from job.pipeline.workload import Images, Training, training_of
from job.stages.engine_packages import PADDLE_OPENVINO
from job.stages.probe import NOT_DECODED
from job.text_format import plural

# The constants were fitted to runs of MobileNetV1, ResNet50 and DenseNet169 at 224 pixels and of
# convnet at 8 and 32 pixels, on 2 cores without AVX512.
# Seconds to start a process, import Paddle and load a model.
_START = 4.0
# Billions of multiplications per second and core, in FP32.
_AVX512_RATE, _OTHER_RATE = 50.0, 25.0
# Seconds of a training step per image, in units of the FP32 model's seconds per image.
_TRAINING_FACTOR = 10.0
_FAKE_QUANTIZED_FACTOR = 1.4
# All models of stage accuracy together, in units of the FP32 model.
_ACCURACY_FACTOR = 4.0
# Decoding and resizing a photograph, in seconds.
_DECODE = 0.004
# Calibration measures at most this number of images for each layer.
_LAYER_IMAGES = 128
# Mean time of a pass for one layer, in units of the whole network.
_LAYER_SHARE = 0.5
_LAYER_SECONDS = 0.5
_BREAKDOWN_SECONDS = 20.0
_NO_SPEED = "the network's speed (--probe measures it)"
_NO_STEP = "the speed of training a detector"


@dataclass(frozen=True)
class Speeds:
    """Seconds per image on all cores.

    Attributes:
        forward: the FP32 model; None if unknown.
        train: a training step; None if unknown.
        decode: decoding, in one process.
        layers: number of layers with weights; None if unknown.
        measured: whether the speeds were measured on this machine.
    """

    forward: float | None
    train: float | None
    decode: float
    layers: int | None
    measured: bool


@dataclass(frozen=True)
class Estimate:
    """How long a stage takes.

    Attributes:
        seconds: the known part of the time; None if no part is known.
        work: the work of the stage in words; may be empty.
        unknown: what is unknown, in words; empty if the estimate is complete.
    """

    seconds: float | None
    work: str
    unknown: str = ""


def rough_speeds(manifest: Manifest, host: Host) -> Speeds:
    """Return speeds computed from the multiplications of the network and the number of cores."""
    photographs = manifest.data.format not in NOT_DECODED
    decode = _DECODE if photographs else 0.0
    work = work_of(manifest.model)
    if work is None:
        return Speeds(None, None, decode, None, measured=False)
    rate = _AVX512_RATE if "avx512f" in host.flags else _OTHER_RATE
    forward = work.multiplications / (rate * host.usable_cores)
    return Speeds(forward, _TRAINING_FACTOR * forward, decode, work.layers, measured=False)


def estimates(
    manifest: Manifest, images: Images | None, speeds: Speeds, host: Host, *, why: str = ""
) -> Mapping[str, Estimate]:
    """Return the estimate of each stage by name.

    Args:
        manifest: a manifest of one model.
        images: numbers of images; None if they are unknown.
        speeds: speeds of this machine.
        host: this machine.
        why: why the numbers of images are unknown.
    """
    found = {
        "convert": _of_layers(0.1, _START, speeds),
        "int8": _int8(manifest, speeds),
        "benchmark": _benchmark(manifest, speeds, host),
        "report": Estimate(_START, ""),
    }
    if images is None:
        unknown = Estimate(None, "", f"the number of images ({why})")
        names = ("prepare", "baseline", "calibrate", "qat", "accuracy", *OTHER_ENGINES)
        return found | dict.fromkeys(names, unknown)
    decode = speeds.decode / max(1, min(manifest.data.workers, host.usable_cores))
    count = images.calibration + images.selection + images.test
    found["prepare"] = Estimate(1 + count * decode, plural(count, "image"))
    area = _training_area(manifest)
    found["baseline"] = _training(manifest.baseline.train, images, speeds, decode, area)
    found["calibrate"] = _calibrate(manifest, images, speeds)
    found["accuracy"] = _per_image(_ACCURACY_FACTOR, images.test, speeds)
    found |= dict.fromkeys(OTHER_ENGINES, _per_image(1.0, images.calibration, speeds))
    found["qat"] = Estimate(1.0, "no training")
    if manifest.trains_quantized:
        factor = _FAKE_QUANTIZED_FACTOR * area
        found["qat"] = _training(manifest.train, images, speeds, decode, factor)
    return found


def _training_area(manifest: Manifest) -> float:
    """Return the mean area of a training image, as a multiple of the area of the input."""
    sizes = manifest.detection.augment.sizes
    if manifest.task != "detection" or not sizes:
        return 1.0
    _, height, width = manifest.model.input_shape
    return sum(side * side for side in sizes) / (len(sizes) * height * width)


def total_of(found: Sequence[Estimate]) -> Estimate:
    """Return the sum of estimates."""
    known = [each.seconds for each in found if each.seconds is not None]
    missing = dict.fromkeys(each.unknown for each in found if each.unknown)
    return Estimate(sum(known) if known else None, "", "; ".join(missing))


def _training(
    spec: TrainSpec, images: Images, speeds: Speeds, decode: float, factor: float
) -> Estimate:
    if not spec.has_steps:
        return Estimate(_START, "no training")
    length: Training = training_of(spec, images)
    work = f"{plural(length.steps, 'step')} of {plural(length.batch_size, 'image')}"
    if speeds.train is None or speeds.forward is None:
        return Estimate(None, work, _NO_STEP if speeds.measured else _NO_SPEED)
    step = length.batch_size * max(factor * speeds.train, decode)
    evaluation = images.selection * speeds.forward
    return Estimate(_START + length.steps * step + length.evaluations * evaluation, work)


def _calibrate(manifest: Manifest, images: Images, speeds: Speeds) -> Estimate:
    if not manifest.quantize.calibrate:
        return Estimate(1.0, "no calibration")
    work = plural(images.calibration, "image")
    if speeds.forward is None or speeds.layers is None:
        return Estimate(None, work, _NO_SPEED)
    gptq = manifest.quantize.weight_rounding == "gptq"
    passes = _LAYER_SHARE * speeds.layers + 1 if gptq else 1
    shown = images.calibration + passes * min(images.calibration, _LAYER_IMAGES)
    rounding = _LAYER_SECONDS * speeds.layers if gptq else 0.0
    return Estimate(
        _START + shown * speeds.forward + rounding,
        f"{work}, {plural(speeds.layers, 'layer')}",
    )


def _per_image(factor: float, count: int, speeds: Speeds) -> Estimate:
    work = plural(count, "image")
    if speeds.forward is None:
        return Estimate(None, work, _NO_SPEED)
    return Estimate(2 * _START + factor * count * speeds.forward, work)


def _of_layers(seconds: float, start: float, speeds: Speeds) -> Estimate:
    if speeds.layers is None:
        return Estimate(start, "", _NO_SPEED)
    return Estimate(start + seconds * speeds.layers, plural(speeds.layers, "layer"))


def _int8(manifest: Manifest, speeds: Speeds) -> Estimate:
    found = _of_layers(0.2, 3 * _START, speeds)
    fallback = manifest.quantize.fallback
    if fallback is None:
        return found
    search = f"the search of quantize.fallback, at most {fallback.max_minutes:g} min"
    unknown = f"{found.unknown}; {search}" if found.unknown else search
    return Estimate(found.seconds, found.work, unknown)


def _benchmark(manifest: Manifest, speeds: Speeds, host: Host) -> Estimate:
    spec = manifest.benchmark
    scenarios = [*spec.threads, *(1 for _ in spec.instances)]
    models = 3 + sum(name in OTHER_ENGINES for name in spec.engines)
    # FP32 is also timed in this engine.
    models += PADDLE_OPENVINO in spec.engines
    rows = len(spec.isa) * len(scenarios) * len(spec.batch_sizes)
    seconds = len(spec.isa) * _BREAKDOWN_SECONDS
    for threads in scenarios:
        for batch_size in spec.batch_sizes:
            call = (speeds.forward or 0.0) * batch_size * host.usable_cores / threads
            timed = max(spec.min_seconds, spec.min_samples * call)
            # The warm-up takes no longer than a round.
            warmup = min(spec.warmup_batches * call, spec.min_seconds / spec.rounds) + call
            started = spec.rounds * (_START - 1 + warmup)
            seconds += len(spec.isa) * models * (timed + started)
    work = f"{plural(rows, 'row')}, {plural(models, 'model')}"
    return Estimate(seconds, work, _NO_SPEED if speeds.forward is None else "")
