"""The process that runs a saved model on a packed file; :mod:`job.predict.runner` starts it.

The request has the fields of ``job.predict.runner.Trial``, ``prefix``, ``cores`` (one for each
thread) and ``profile_runs``. The process sends {"progress": [done, total]} and then {"result":
{...}}. If ``profile_runs`` is not 0, it runs the first batch that many times instead, for oneDNN's
log. The environment variables for thread counts are set before this process starts.
"""

import gc
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from job.errors import DataError, UsageError
from job.process.json_channel import JsonChannel, run_child

PROGRESS_SECONDS = 0.1
Send = Callable[..., None]


class Tester:
    """A loaded model that is given batches of images with their labels.

    Args:
        prefix: of the saved model.
        threads: of the maths library.

    Raises:
        DataError: the model cannot be loaded.
    """

    def __init__(self, prefix: Path, threads: int) -> None:
        from job.engine.inference import predictor, runtime, saved_model

        self._prefix = prefix
        self.saved = saved_model.read_saved_model(prefix)
        mode = predictor.ONEDNN if self.saved.kind == saved_model.FP32 else self.saved.kind
        started = time.perf_counter()
        config = predictor.configuration(prefix, mode, threads=threads)
        with model_errors(prefix):
            self.predictor = runtime.open_predictor(config)
        self.load_seconds = time.perf_counter() - started
        self._image = self.predictor.get_input_handle(self.saved.image)
        label = self.saved.label
        self._label = self.predictor.get_input_handle(label) if label else None
        wanted = self.saved.accuracies if label else [self.saved.scores]
        self._outputs = [self.predictor.get_output_handle(name) for name in wanted]

    def run(self, images: Any, labels: Any) -> list[Any]:
        """One call: images and labels in, scores or accuracies out."""
        with model_errors(self._prefix):
            self._image.reshape(images.shape)
            self._image.copy_from_cpu(images)
            if self._label is not None:
                self._label.reshape(labels.shape)
                self._label.copy_from_cpu(labels)
            self.predictor.run()
            return [output.copy_to_cpu() for output in self._outputs]

    def right(self, outputs: list[Any], labels: Any) -> dict[str, int | None]:
        """How many images of a batch are right, from what ``run`` returned.

        None for a top-5 that the model's accuracy layer does not tell.
        """
        from job import stats

        count = len(labels)
        if self._label is None:
            flat = labels.reshape(-1)
            found = [stats.topk_correct(outputs[0], flat, k).sum() for k in (1, 5)]
        else:
            found = [round(float(share.reshape(-1)[0]) * count) for share in outputs]
        return {"top1": int(found[0]), "top5": int(found[-1]) if len(found) > 1 else None}


class model_errors:  # noqa: N801
    """A context that translates what Paddle raises of a model that it cannot run.

    A class, since a generator would add microseconds to each call that is timed.
    """

    def __init__(self, prefix: Path) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RuntimeError | ValueError | OSError | NotImplementedError):
            lines = [line.strip() for line in str(error).splitlines() if line.strip()]
            # Paddle's own summary, among the frames of its stack.
            said = next((line for line in lines if line.startswith("(")), lines[-1])
            raise DataError(
                f"{self._prefix}: Paddle cannot run this model: {said}",
                "Make it anew with the Paddle that is installed; `job doctor` tells which.",
            ) from error


def check_layer(tester: Tester, wanted: bool | None) -> None:
    """Refuse a model whose accuracy layer is not as the command says."""
    label = tester.saved.label
    if wanted is True and label is None:
        raise UsageError(
            "--with-accuracy-layer: the model has no input of labels",
            "Leave the option out: right answers are then counted from the scores.",
        )
    if wanted is False and label is not None:
        raise UsageError(
            f"--no-with-accuracy-layer: the model has an accuracy layer, fed by {label!r}",
            "Leave the option out.",
        )


def open_data(path: Path, tester: Tester) -> Any:
    """The packed file, checked against the model: shape, and every label."""
    import numpy as np

    from job.data import packed

    shape = tester.saved.input_shape
    if min(shape) < 1:
        described = packed.read_sidecar(path)
        if described is None:
            raise DataError(
                f"the model takes images of any size {list(shape)}, and {path} has no sidecar",
                "Pack the images with `job pack`, which writes one.",
            )
        shape = tuple(described["shape"])
    data = packed.open_packed(path, shape)
    outside = np.flatnonzero((data.labels < 0) | (data.labels >= tester.saved.classes))
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"{path}: label {int(data.labels[first])} of image {first} is outside the model's "
            f"{tester.saved.classes} classes; {outside.size:,} of {len(data.labels):,} labels are",
            "Check that the file and the model belong together.",
        )
    return data


class Batches:
    """Batches of a packed file, copied to memory one at a time.

    Args:
        data: the open file.
        tester: tells the form of labels.
        size: images a batch; the last may be smaller.
    """

    def __init__(self, data: Any, tester: Tester, size: int) -> None:
        self._data, self._rank = data, tester.saved.label_rank
        self.size = min(size, len(data.labels))
        self.count = -(-len(data.labels) // self.size)
        self.whole = len(data.labels) // self.size

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        import numpy as np

        part = slice(number * self.size, (number + 1) * self.size)
        labels = self._data.labels[part]
        return np.array(self._data.images[part]), labels[:, None] if self._rank == 2 else labels


def test(tester: Tester, batches: Batches, request: Mapping[str, Any], send: Send) -> Any:
    """Run the batches; every one counts for accuracy, whole ones for speed.

    Returns:
        ``images`` predicted in ``iterations`` batches, ``top1`` and ``top5`` right ones,
        ``milliseconds`` of each call that counts for speed.

    Raises:
        UsageError: no batch is left to time, or more are asked for than there are.
    """
    iterations = request["iterations"] or batches.count
    skipped, repeat = request["skip_batch_num"], request["repeat"]
    if iterations > batches.count:
        raise UsageError(
            f"--iterations {iterations}: the file has {batches.count} batches of {batches.size}",
        )
    if skipped >= min(iterations, batches.whole):
        raise UsageError(
            f"--skip-batch-num {skipped}: of {min(iterations, batches.whole)} whole batches "
            "none is left to time"
        )
    for number in range(request["warmup_size"]):
        tester.run(*batches[number % batches.whole])
    images, told, milliseconds = 0, 0.0, []
    right: dict[str, int | None] = {"top1": 0, "top5": 0}
    for number in range(iterations):
        batch = batches[number]
        for _ in range(repeat):
            started = time.perf_counter_ns()
            outputs = tester.run(*batch)
            elapsed = (time.perf_counter_ns() - started) / 1e6
            if skipped <= number < batches.whole:
                milliseconds.append(elapsed)
        images += len(batch[1])
        for name, count in tester.right(outputs, batch[1]).items():
            right[name] = None if count is None else (right[name] or 0) + count
        if time.monotonic() - told > PROGRESS_SECONDS:
            told = time.monotonic()
            send(progress=[number + 1, iterations])
    return {"images": images, "iterations": iterations, "milliseconds": milliseconds, **right}


def work(request: Mapping[str, Any], send: Send) -> None:
    """Load, check and run; tell the result."""
    from job.engine.inference import runtime

    tester = Tester(Path(request["prefix"]), request["num_threads"])
    check_layer(tester, request["with_accuracy_layer"])
    data = open_data(Path(request["infer_data"]), tester)
    batches = Batches(data, tester, request["batch_size"])
    if request["profile_runs"]:
        for _ in range(request["profile_runs"]):
            tester.run(*batches[0])
        send(result={})
        return
    result = test(tester, batches, request, send)
    send(
        result={
            **result,
            "kind": tester.saved.kind,
            "classes": tester.saved.classes,
            "input_shape": list(data.images.shape[1:]),
            "accuracy_layer": tester.saved.label is not None,
            "file_images": len(data.labels),
            "batch_size": batches.size,
            "load_seconds": tester.load_seconds,
            "paddle": runtime.VERSION,
        }
    )


def main(request: Mapping[str, Any], channel: JsonChannel) -> None:
    """Do the work on the requested cores."""
    # Before Paddle starts its threads, which inherit this.
    os.sched_setaffinity(0, request["cores"])
    # A garbage collection during a call would be counted as inference.
    gc.disable()
    work(request, channel.send)


if __name__ == "__main__":
    run_child(main)
