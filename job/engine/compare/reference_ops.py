"""Computes each op of the fake-quantized model on given inputs, without rounding."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

import numpy as np
from paddle import static

from job.engine.compare.counterparts import Counterpart, FakeOps, counterparts
from job.engine.inference.paddle_format import attribute, inputs_of, is_int8, outputs_of
from job.engine.int8.audit import read_ops
from job.engine.quantize.fake_quantize import remove_ops
from job.engine.training.programs import IMAGE, cpu, load_inference_model, read_variables

GIVEN = "@given"
# Ops of these types use the scale of the op before them, so they do not round.
KEEPING_STEPS = ("pool2d",)
STEPS = ((-128, 127), (0, 255))

Values = Mapping[str, np.ndarray]


class Reference:
    """Expected outputs of the INT8 ops.

    Args:
        fake: prefix of the fake-quantized model.
        int8: prefix of the INT8 model that was built from it.

    Attributes:
        outputs: variable of the fake-quantized model -> INT8 op that computes it.
        reads: variables of the INT8 model that :meth:`expected` needs -> scale of the variables
            that contain 8-bit integers; None for other variables.
    """

    def __init__(self, fake: Path, int8: Path) -> None:
        self.scope = static.Scope()
        self.executor = static.Executor(cpu())
        self.program, _, _ = load_inference_model(fake, self.executor, self.scope)
        ops = read_ops(Path(f"{int8}.pdmodel"))
        model = FakeOps(self.program, ops)
        self.outputs = {each.result: each for each in counterparts(model, ops)}
        scales = {name: model.graph.scale_of(name) for name in self.outputs}
        values = read_variables(self.scope, [scale for scale in scales.values() if scale])
        self.trained = {name: float(values[s].max()) for name, s in scales.items() if s}
        fp32 = {name for op in ops if not is_int8(op) for name in outputs_of(op)}
        rounding = {name for name, each in self.outputs.items() if each.type not in KEEPING_STEPS}
        given = take_apart(model, {IMAGE, *rounding, *fp32}, self.outputs)
        # Variable of the fake-quantized model -> variable that the INT8 model writes and reads.
        self.written = {n: self.outputs[n].output if n in self.outputs else n for n in given}
        quantizing = {inputs_of(op)[0]: op for op in reversed(ops) if op.type == "quantize"}
        self.read = self.written | {
            name: outputs_of(quantizing[name])[0] for name in given if name in quantizing
        }
        self.reads: dict[str, float | None] = dict.fromkeys(self.written.values())
        self.reads |= {each.output: each.scale for each in self.outputs.values()}
        self.reads |= {outputs_of(op)[0]: attribute(op, "Scale") for op in quantizing.values()}

    def expected(self, values: Values) -> Iterator[tuple[Counterpart, np.ndarray]]:
        """Yield each INT8 op and its expected output in floating point.

        Args:
            values: values of the variables in ``reads``, in floating point.
        """
        of_rounded = self.compute({name: values[read] for name, read in self.read.items()})
        of_unrounded = self.compute(self.unrounded(values, of_rounded))
        for name, each in self.outputs.items():
            if each.type in KEEPING_STEPS:
                yield each, of_rounded[name]
            elif each.feeds_int8:
                yield each, self.rounded(name, of_unrounded[name])
            else:
                yield each, of_unrounded[name]

    def unrounded(self, values: Values, of_rounded: Values) -> Values:
        """Return the inputs of the ops without the error of rounding to the trained scales.

        Other errors remain in the inputs, because they are errors of the ops that computed them.
        """
        inputs = {name: values[written] for name, written in self.written.items()}
        for name in inputs.keys() & self.outputs.keys():
            if self.outputs[name].scale is not None:
                exact = of_rounded[name]
                inputs[name] = inputs[name] + (exact - self.rounded(name, exact))
        return inputs

    def rounded(self, name: str, values: np.ndarray) -> np.ndarray:
        """Return the values of a variable after rounding to its trained scale."""
        scale = self.outputs[name].scale
        # A variable without a trained scale has the scale of the op that reads it.
        if name not in self.trained:
            return np.rint(values * scale) / np.float32(scale)
        largest = self.trained[name]
        # Paddle uses 127 signed or 255 unsigned steps. The scale determines which.
        low, high = min(STEPS, key=lambda steps: abs(np.log(steps[1] / largest / scale)))
        return np.clip(np.rint(values * (high / largest)), low, high) * np.float32(largest / high)

    def compute(self, values: Values) -> dict[str, np.ndarray]:
        """Return the result of each op for the given inputs of all ops."""
        feed = {f"{name}{GIVEN}": values[name] for name in self.written}
        with static.scope_guard(self.scope):
            results = self.executor.run(self.program, feed, list(self.outputs))
        return dict(zip(self.outputs, results, strict=True))

    def close(self) -> None:
        """Free the weights and the results, which Paddle's executor would keep in memory."""
        self.scope.erase(self.scope.local_var_names())


def take_apart(model: FakeOps, known: Collection[str], results: Collection[str]) -> list[str]:
    """Remove all ops that ``results`` do not need, and make the others read given values.

    Args:
        model: the fake-quantized model; its program is changed.
        known: variables whose values are given. An op reads the value of ``name`` from the variable
            ``name`` + ``GIVEN``.
        results: variables to compute.

    Returns:
        The variables of ``known`` that are read.
    """
    block, producers = model.block, model.graph.producers
    needed, given, waiting = {}, set(), list(results)
    while waiting:
        op = producers[waiting.pop()]
        if id(op) in needed:
            continue
        needed[id(op)] = op
        sources = set(model.activations(op))
        given |= sources & known
        waiting += sources - known
    for name in given:
        variable = block.var(name)
        block.create_var(name=f"{name}{GIVEN}", shape=variable.shape, dtype=variable.dtype)
    for op in needed.values():
        for name in set(op.input_arg_names):
            source = model.unpaired(name)
            if source in given:
                op._rename_input(name, f"{source}{GIVEN}")
            elif not block.var(source).persistable:
                op._rename_input(name, source)
    read = {name for op in needed.values() for name in op.input_arg_names}
    kept = [id(op) in needed or not read.isdisjoint(op.output_arg_names) for op in block.ops]
    remove_ops(block.program, [not keep for keep in kept])
    return sorted(given)
