"""Computes the outputs that an INT8 model should have."""

import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from paddle import static

from job.engine.inference.predictor import FAKE_QUANTIZED, Predictor, configuration
from job.engine.int8.halved_weights import halve_weights
from job.engine.int8.skip_ops import output_of, quantizable, select
from job.engine.quantize.graph import Graph
from job.engine.training.programs import cpu, load_inference_model, save_inference_model


def expected_outputs(
    fake_quantized: Path,
    images: np.ndarray,
    quantize_op_types: Sequence[str],
    *,
    quantized_ops: Collection[str] | None = None,
    skip_ops: Sequence[str] = (),
    halved_weights: bool = False,
) -> tuple[np.ndarray, ...]:
    """Return the outputs of the fake-quantized model, with the same ops in FP32 as the INT8 model.

    An op in FP32 reads values that are not rounded.

    Args:
        fake_quantized: prefix of the fake-quantized model.
        images: float32 [N, C, H, W].
        quantize_op_types, quantized_ops, skip_ops: see :func:`job.engine.int8.build.build`.
        halved_weights: round weights as oneDNN does without AVX512_VNNI.

    Returns:
        The outputs in the order of the model; of a classifier, scores float32 [N, classes].
    """
    scope = static.Scope()
    with static.scope_guard(scope), tempfile.TemporaryDirectory() as folder:
        executor = static.Executor(cpu())
        program, _, fetches = load_inference_model(fake_quantized, executor, scope)
        graph = Graph(program)
        for op, _ in select(graph, quantize_op_types, quantized_ops, skip_ops):
            for name in op.input_arg_names:
                source = graph.plain(name)
                if source != name:
                    op._rename_input(name, source)
        program._sync_with_cpp()
        prefix = Path(folder) / "expected"
        save_inference_model(program, prefix, fetches, executor)
        if halved_weights:
            halve_weights(prefix)
        return Predictor(configuration(prefix, FAKE_QUANTIZED, threads=1)).outputs(images)


def ops_of(fake_quantized: Path, quantize_op_types: Sequence[str]) -> list[str]:
    """Return the names of the ops that can run in INT8, in the order of the program."""
    scope = static.Scope()
    with static.scope_guard(scope):
        program, _, _ = load_inference_model(fake_quantized, static.Executor(cpu()), scope)
    return [output_of(op) for _, op in quantizable(Graph(program), quantize_op_types)]
