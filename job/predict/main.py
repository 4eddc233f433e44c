"""The process that runs a saved model on a packed file; :mod:`job.predict.runner` starts it.

The request has the fields of ``job.predict.runner.Trial``, ``prefix``, ``cores`` (one for each
thread) and ``profile_runs``. The process sends {"progress": [done, total]} and then {"result":
{...}}. If ``profile_runs`` is not 0, it runs only the first batch, ``profile_runs`` times, and
oneDNN logs the primitives. The environment variables for thread counts are set before this process
starts.
"""

import gc
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from job.errors import DataError, QuantizationError, UsageError
from job.process.json_channel import JsonChannel, run_child

PROGRESS_SECONDS = 0.1
Send = Callable[..., None]


class Tester:
    """A loaded model.

    Args:
        prefix: path of the saved model without suffix.
        threads: threads of the math library.

    Raises:
        DataError: Paddle cannot load the model.
    """

    def __init__(self, prefix: Path, threads: int) -> None:
        from job.engine.inference import pir_format, predictor, runtime, saved_model

        self._prefix = prefix
        with pir_format.legacy_model(prefix) as legacy:
            self.saved = saved_model.read_saved_model(legacy)
            self.predictor: Any
            started = time.perf_counter()
            with model_errors(prefix):
                if self.saved.kind == saved_model.PADDLE_OPENVINO:
                    # Imported here, because other models do not need the engine.
                    from job.engine.paddle_openvino.model import PaddleOpenVINOModel

                    self.predictor = PaddleOpenVINOModel(legacy, threads).predictor
                else:
                    fp32 = self.saved.kind == saved_model.FP32
                    mode = predictor.ONEDNN if fp32 else self.saved.kind
                    config = predictor.configuration(legacy, mode, threads=threads, whole=True)
                    self.predictor = runtime.open_predictor(config)
            self.load_seconds = time.perf_counter() - started
        self._image = self.predictor.get_input_handle(self.saved.image)
        label = self.saved.label
        self._label = self.predictor.get_input_handle(label) if label else None
        names = self.saved.accuracies if label else [self.saved.scores]
        self._outputs = [self.predictor.get_output_handle(name) for name in names]

    def run(self, images: Any, labels: Any) -> list[Any]:
        """Run the model on one batch.

        Args:
            images: float32 [N, C, H, W].
            labels: int64 [N] or [N, 1], see ``saved.label_rank``.

        Returns:
            The scores [N, classes]. For a model with an accuracy layer: top-1 accuracy (0 to 1),
            and top-5 accuracy if the model has this output.

        Raises:
            DataError: Paddle cannot run the model.
        """
        with model_errors(self._prefix):
            self._image.reshape(images.shape)
            self._image.copy_from_cpu(images)
            if self._label is not None:
                self._label.reshape(labels.shape)
                self._label.copy_from_cpu(labels)
            self.predictor.run()
            return [output.copy_to_cpu() for output in self._outputs]

    def count_correct(self, outputs: list[Any], labels: Any) -> dict[str, int | None]:
        """Return the number of correct answers of a batch.

        Args:
            outputs: the outputs of ``run``.
            labels: the labels of the batch.

        Returns:
            ``top1`` and ``top5``; the latter is None if the accuracy layer has no top-5 output.
        """
        from job import stats

        count = len(labels)
        if self._label is None:
            flat = labels.reshape(-1)
            correct = [stats.topk_correct(outputs[0], flat, k).sum() for k in (1, 5)]
        else:
            correct = [round(float(share.reshape(-1)[0]) * count) for share in outputs]
        return {"top1": int(correct[0]), "top5": int(correct[-1]) if len(correct) > 1 else None}


# Paddle's exceptions have no common class. The code of the other engines raises QuantizationError.
FAILURES = (RuntimeError, ValueError, OSError, NotImplementedError, QuantizationError)


class model_errors:  # noqa: N801
    """A context that translates an engine's exceptions into DataError.

    It is a class, because a generator would add microseconds to each timed call.

    Args:
        model: path of the model.
        library: the engine's name in the message.
        hint: what to do.
    """

    def __init__(
        self,
        model: Path,
        library: str = "Paddle",
        hint: str = "Save the model again with the installed Paddle version (see `job doctor`).",
    ) -> None:
        self._model, self._library, self._hint = model, library, hint

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, FAILURES):
            return
        text = error.message if isinstance(error, QuantizationError) else str(error)
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        # Paddle's message contains a stack trace; its summary begins with a parenthesis.
        last = (lines or [type(error).__name__])[-1]
        summary = next((line for line in lines if line.startswith("(")), last)
        raise DataError(
            f"{self._model}: {self._library} cannot run this model: {summary}", self._hint
        ) from error


def check_layer(tester: Tester, expected: bool | None) -> None:
    """Check whether the model has an accuracy layer.

    Args:
        tester: the loaded model.
        expected: whether it must have one; None accepts both.

    Raises:
        UsageError: the model differs from what is expected.
    """
    label = tester.saved.label
    if expected is True and label is None:
        raise UsageError(
            "--with-accuracy-layer: the model has no label input, so it has no accuracy layer",
            "Omit the option. Then correct answers are counted from the scores.",
        )
    if expected is False and label is not None:
        raise UsageError(
            f"--no-with-accuracy-layer: the model has an accuracy layer with label input {label!r}",
            "Omit the option.",
        )


def open_data(path: Path, tester: Tester) -> Any:
    """Open a packed file and check its image shape and all labels against the model.

    Raises:
        DataError: the file is invalid or does not match the model.
    """
    import numpy as np

    from job.data import packed
    from job.engine.inference import saved_model

    shape = tester.saved.input_shape
    if min(shape) < 1:
        described = packed.read_sidecar(path)
        if described is None:
            raise DataError(
                f"{path}: the sidecar {packed.sidecar(path).name} is missing; it must contain the "
                f"image size, because the model accepts any size {saved_model.sizes(shape)}",
                "Pack the images with `job pack`. It also writes the sidecar.",
            )
        shape = tuple(described["shape"])
    data = packed.open_packed(path, shape)
    outside = np.flatnonzero((data.labels < 0) | (data.labels >= tester.saved.classes))
    if outside.size:
        first = int(outside[0])
        raise DataError(
            f"{path}: label {int(data.labels[first])} of image {first} is outside the model's "
            f"{tester.saved.classes} classes (invalid labels: {outside.size:,} of "
            f"{len(data.labels):,})",
            "Check that the packed file was made for this model.",
        )
    return data


class Batches:
    """Batches of a packed file; each is copied to memory when it is read.

    Args:
        data: the open file.
        tester: the model, which determines the shape of labels.
        size: images of a batch; the last batch may be smaller.

    Attributes:
        size: images of a batch, at most the number of images in the file.
        count: number of batches.
        whole: number of batches that are not smaller than ``size``.
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
    """Run the batches. Accuracy includes all batches. Speed includes only batches of full size.

    Returns:
        ``images`` in ``iterations`` batches, ``top1`` and ``top5`` correct answers, and
        ``milliseconds`` of each call that counts for speed.

    Raises:
        UsageError: the file has too few batches for the options.
    """
    iterations = request["iterations"] or batches.count
    skipped, repeat = request["skip_batch_num"], request["repeat"]
    if iterations > batches.count:
        raise UsageError(
            f"--iterations {iterations}: the file has only {batches.count} batches of "
            f"{batches.size} images",
            f"Lower --iterations to at most {batches.count}, or lower --batch-size.",
        )
    if skipped >= min(iterations, batches.whole):
        raise UsageError(
            f"--skip-batch-num {skipped}: no batch remains to be timed, because only "
            f"{min(iterations, batches.whole)} batches of full size are run",
            "Lower --skip-batch-num or --batch-size.",
        )
    for number in range(request["warmup_size"]):
        tester.run(*batches[number % batches.whole])
    images, reported_at, milliseconds = 0, 0.0, []
    correct: dict[str, int | None] = {"top1": 0, "top5": 0}
    for number in range(iterations):
        batch = batches[number]
        for _ in range(repeat):
            started = time.perf_counter_ns()
            outputs = tester.run(*batch)
            elapsed = (time.perf_counter_ns() - started) / 1e6
            if skipped <= number < batches.whole:
                milliseconds.append(elapsed)
        images += len(batch[1])
        for name, count in tester.count_correct(outputs, batch[1]).items():
            correct[name] = None if count is None else (correct[name] or 0) + count
        if time.monotonic() - reported_at > PROGRESS_SECONDS:
            reported_at = time.monotonic()
            send(progress=[number + 1, iterations])
    return {"images": images, "iterations": iterations, "milliseconds": milliseconds, **correct}


def work(request: Mapping[str, Any], send: Send) -> None:
    """Load the model, check it with the file, run it and send the result."""
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
    """Load and run the model on the requested cores."""
    # Set before Paddle is imported, because threads inherit the cores.
    os.sched_setaffinity(0, request["cores"])
    # A garbage collection during a call would be counted as inference.
    gc.disable()
    work(request, channel.send)


if __name__ == "__main__":
    run_child(main)
