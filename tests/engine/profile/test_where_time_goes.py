"""Where the time goes, measured on real models."""

import jsonschema
import pytest
import tiny

from job.engine.compare.op_graph import read_op_graph
from job.engine.training import network_programs, programs
from job.engine.training.baseline import export
from job.engine.training.objective import Labels
from job.engine.training.zoo import nn
from job.host import read_host
from job.profile import breakdown
from job.profile import record as record_
from job.report.render import schema_check

pytestmark = pytest.mark.engine

needs_vnni = pytest.mark.skipif(
    not read_host().has_vnni, reason="/proc/cpuinfo lacks avx512_vnni: INT8 takes other kernels"
)


def save(session, folder):
    """Prefixes of a session's FP32 and INT8 models."""
    export(session, folder)
    (folder / "int8").mkdir()
    tiny.quantize(session, folder / "int8")
    return folder / "model", folder / "int8/model"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return save(tiny.open_tiny(), tmp_path_factory.mktemp("breakdown"))


@needs_vnni
@pytest.mark.parametrize(("cap", "batch_size"), [("all", 1), ("avx512_core_vnni", 3)])
def test_both_models_are_accounted_for(models, cap, batch_size):
    figures = breakdown.measure(*models, tiny.SHAPE, cap, batch_size=batch_size)
    schema = schema_check.schema()
    part = {**schema["properties"]["breakdown"]["items"], "$defs": schema["$defs"]}
    jsonschema.validate(figures, part)
    assert (figures["isa_cap"], figures["batch_size"]) == (cap, batch_size)
    layers = {
        model: {row["kind"]: row["count"] for row in figures[model]["kinds"]}
        for model in ("fp32", "int8")
    }
    for counts in layers.values():
        assert (counts["convolution"], counts["matrix product"]) == (10, 1)
    assert layers["int8"]["reorder: quantize"] >= 1
    assert min(figures["dispatch_ms"].values()) > 0
    assert 0 < figures["reorder_share"] < 1
    assert {row["op"] for row in figures["slowest"]} <= {
        "linear_0.tmp_0",
        *(f"conv2d_{number}.tmp_0" for number in range(10)),
    }
    assert all(row["ratio"] and f"mb{batch_size}" in row["shape"] for row in figures["slowest"])
    if cap != "all":
        assert not any("amx" in row["implementation"] for row in figures["slowest"])


def test_a_call_is_timed_apart_from_its_log(models):
    # Timed and logged calls differ, so another process can slow down the logged calls only.
    for _ in range(5):
        recording = record_.record(models[0], "onednn", tiny.SHAPE, timed=3, logged=2)
        in_primitives = sum(primitive.milliseconds for primitive in recording.primitives)
        if 0 < in_primitives < recording.milliseconds:
            return
    pytest.fail(f"primitives take {in_primitives} ms of {recording.milliseconds} ms")


def test_logs_own_variable_changes_nothing(models, monkeypatch):
    monkeypatch.setenv("ONEDNN_VERBOSE", "all")
    primitives = record_.trace(models[0], "onednn", tiny.SHAPE)
    assert [p.kind for p in primitives].count("convolution") == 10


class Alternating(nn.Layer):
    """Convolutions with something between them that INT8 has no kernel for."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2D(3, 16, 3), nn.Conv2D(16, 16, 3)
        self.third, self.head = nn.Conv2D(16, 16, 3), nn.Linear(16, 10)

    def forward(self, x):
        x = self.second(nn.functional.log_sigmoid(self.first(x)))
        x = self.third(nn.functional.relu(x))
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


@needs_vnni
def test_islands_are_named_as_in_the_fp32_model(tmp_path):
    scope = programs.static.Scope()
    executor = programs.static.Executor(programs.cpu())
    classifier = network_programs.from_network(
        Alternating, input_shape=(3, 16, 16), objective=Labels(10, 0.0), seed=0
    )
    with programs.static.scope_guard(scope):
        executor.run(classifier.startup)
    session = tiny.Session(classifier, scope, executor, (3, 16, 16))
    graph = read_op_graph(*save(session, tmp_path))
    first, second, third = graph.layers["convolution"]
    assert graph.islands == [
        {"op": first, "type": "fused_conv2d"},
        {"op": graph.layers["product"][0], "type": "fc"},
    ]
    assert second != third
    assert all(name.startswith("conv2d_") and name.endswith(".tmp_0") for name in (second, third))
