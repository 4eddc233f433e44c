"""What each key of the manifest costs: time, memory, disk. ``job explain`` prints it."""

_NONE = "No time."
_TRAINING = {
    "epochs": "Training time is proportional to the epochs.",
    "max_iters": "Training time is proportional to the steps.",
    "batch_size": "Memory is proportional to the batch size; an epoch takes about the same time.",
    "optimizer": "adam needs memory for two more copies of the weights, momentum for one.",
    "checkpoint_seconds": "Each checkpoint writes the weights and the optimizer state to the disk.",
    "evaluations_per_epoch": "Each evaluation runs the selection split once.",
    "label_smoothing": _NONE,
    "schedule": _NONE,
    "seed": _NONE,
    "device": "Only training uses a GPU.",
    "base_lr": _NONE,
    "momentum": _NONE,
    "weight_decay": _NONE,
}
_QUANTIZED = {
    "loss": "distill also runs the FP32 model in each step.",
    "step_size": _NONE,
    "freeze_bn_stats": _NONE,
}

# The line of a key also applies to the keys inside it that have none.
COSTS = {
    "": _NONE,
    "/model": "The network's multiplications determine the time of every stage except prepare.",
    "/model/classes": "Little: only the last layer grows.",
    "/model/input_shape": "Time and memory are proportional to height times width.",
    "/model/width": "Time is about proportional to the square of the width.",
    "/model/weights": "A file in S3 is downloaded once.",
    "/model/weights_sha256": "Little: the file is read once more.",
    "/model/pretrained": "One download of the weights, which are then cached.",
    "/model/random_weights": _NONE,
    "/model/reset_classifier": "The network must be trained: set /baseline/train/epochs.",
    "/data": "Stage prepare decodes the images of all splits except train.",
    "/data/train_list": "The images are decoded in each epoch; a run without training skips them.",
    "/data/train_dir": "The images are decoded in each epoch; a run without training skips them.",
    "/data/train_file": "The images are read in each epoch; a run without training skips them.",
    "/data/selection_fraction": "Each evaluation of a training runs this split once.",
    "/data/val_fraction": "Stage accuracy runs this split through every model.",
    "/data/mean": _NONE,
    "/data/std": _NONE,
    "/data/augment": "Little, compared with decoding the image.",
    "/data/workers": "Each decoding process uses one core, and memory of its own.",
    "/data/max_bad_fraction": _NONE,
    "/data/calibration_images": "Time of stage calibrate; above 128 images it grows slowly.",
    "/baseline/train": "Training on the CPU is the longest part of most runs. 0 epochs: no time.",
    "/quantize/strategy": "post: no training. aware: also the time of /train.",
    "/quantize/pact": "Little time; one more parameter per activation.",
    "/quantize/calibrate": "true: stage calibrate runs the calibration images once.",
    "/quantize/weight_rounding": "gptq: passes over up to 128 images (2,048 small ones).",
    "/quantize/equalize": "One more pass over up to 128 images (2,048 small ones).",
    "/quantize/fallback": "Builds and scores several INT8 models, up to max_minutes.",
    "/train": "Training on the CPU is the longest part of most runs, if strategy is aware.",
    "/int8/repair": "No time if INT8 is right; otherwise, builds several INT8 models.",
    "/int8/debug": "Little: two drawings of the graph are written.",
    "/accuracy/shards": "Divides the time of stage accuracy among several machines.",
    "/benchmark": "Time is the product: rows x models x min_seconds. Rows: see the keys inside.",
    "/benchmark/batch_sizes": "One row for each value, thread count, instance count and ISA.",
    "/benchmark/threads": "One row for each value and batch size.",
    "/benchmark/instances": "One row for each value and batch size; memory for each process.",
    "/benchmark/isa": "All rows are measured again for each value.",
    "/benchmark/engines": "Each engine adds a conversion and one model to each row.",
    "/benchmark/warmup_batches": "Untimed calls of each model in each round.",
    "/benchmark/min_seconds": "At least this time for each model in each row.",
    "/benchmark/min_samples": "At least this number of calls; determines the time for slow models.",
    "/benchmark/rounds": "Each round starts one process per model, about 3 s each.",
    "/matrix": "A complete run for each entry; `job run --index` divides them among machines.",
    "/storage/cache_gib": "Disk space for the cache of inputs from S3.",
    "/storage/retry_minutes": "A run waits up to this time for an S3 server that fails.",
    "/run/max_minutes": "Ends the run after this time; the same command resumes it.",
    **{f"/baseline/train/{name}": text for name, text in _TRAINING.items()},
    **{f"/train/{name}": text for name, text in {**_TRAINING, **_QUANTIZED}.items()},
}


def cost_of(pointer: str) -> str:
    """Return the cost of a key in one line.

    Args:
        pointer: JSON pointer of a key, such as ``/train/epochs``.
    """
    while pointer not in COSTS:
        pointer = pointer.rpartition("/")[0]
    return COSTS[pointer]
