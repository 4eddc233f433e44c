"""INT8 models for OpenVINO and ONNX Runtime: same weights and scales, same error against FP32."""

import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import tiny
from paddle import nn  # noqa: TID251
from tiers import full_but
from tiny import NETWORKS, needs_vnni

from job.engine.int8.audit import WEIGHTED
from job.engine.rewrites.network import read_network
from job.errors import DataError, QuantizationError
from job.tasks.classification import agreement

pytestmark = pytest.mark.engine

# Files hold int8 weights, one scale a channel, and a description of the graph, which is the larger
# part of a tiny network's: the share of FP32's size is tested on the network with most weights.
HEAVY, SIZE_SHARE = "squeezenet1_1", 0.35
# One network of each kind of block. SqueezeNet's dropout scales what it is given.
CHOSEN = ("convnet", "mobilenet_v2", "mobilenet_v3_small", "resnet18", "squeezenet1_1", "lenet")


@pytest.fixture(params=["openvino", "onnxruntime"])
def engine(request: pytest.FixtureRequest) -> ModuleType:
    """The conversion module of an engine; both engines are extras."""
    name = request.param
    pytest.importorskip(name, reason=f"{name} is an extra: make engines")
    import importlib

    return importlib.import_module(f"job.engine.{name}.convert")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Function that quantizes a network by name, once per name."""
    made: dict[str, tiny.Quantized] = {}

    def of(name: str) -> tiny.Quantized:
        if name not in made:
            side, width, *_ = NETWORKS[name]
            channels = 1 if name == "lenet" else 3
            session = tiny.open_tiny(
                name=name, classes=10, input_shape=(channels, side, side), width=width
            )
            made[name] = tiny.quantize(session, tmp_path_factory.mktemp(name), bias=1.0)
        return made[name]

    return of


def converted(engine: ModuleType, fake: Path, out: Path) -> tuple[dict[str, Any], Any]:
    out.mkdir()
    record = engine.convert(fake, out)
    return record, engine.open_model(out, 1)


@needs_vnni
@pytest.mark.parametrize("name", full_but(CHOSEN, ["convnet", "resnet18"]))
def test_networks_are_as_close_to_fp32_as_what_was_trained(
    name: str, engine: ModuleType, quantized: Any, tmp_path: Path
) -> None:
    network = quantized(name)
    record, model = converted(engine, network.folder / "fake", tmp_path / "out")
    found = tiny.error(model.scores(network.images), network.fp32)
    bound = NETWORKS[name][-1]
    assert found < bound
    assert found < tiny.WORSE_THAN_FAKE * network.fake_error + tiny.SLACK
    # Every layer with weights has them as int8: as many as Paddle runs in INT8.
    weighted = sum(network.audit.ops_before.get(kind, 0) for kind in WEIGHTED)
    assert record["int8_weights"] == weighted > 0
    assert 0 < record["unsigned"] <= record["quantizers"]


def test_a_model_of_another_engine_is_small(
    engine: ModuleType, quantized: Any, tmp_path: Path
) -> None:
    network = quantized(HEAVY)
    record, _ = converted(engine, network.folder / "fake", tmp_path / "out")
    weights = sum(p.nbytes for p in float_weights(network.folder / "fake"))
    written = sum(file.stat().st_size for file in (tmp_path / "out").iterdir())
    assert record["bytes"] == written < SIZE_SHARE * weights


def float_weights(prefix: Path) -> list[np.ndarray]:
    from job.engine.inference.paddle_format import read_parameters, read_program

    program = read_program(Path(f"{prefix}.pdmodel"))
    values = read_parameters(Path(f"{prefix}.pdiparams"), program).values()
    return [value.astype("float32") for value in values]


def test_batch_sizes_may_change(engine: ModuleType, quantized: Any, tmp_path: Path) -> None:
    network = quantized("convnet")
    _, model = converted(engine, network.folder / "fake", tmp_path / "out")
    whole = model.scores(network.images)
    one = np.concatenate([model.scores(network.images[i : i + 1]) for i in range(4)])
    assert tiny.error(one, whole[:4]) < 0.02


def runtime(model: Any, images: np.ndarray) -> list[dict[str, str]]:
    """Return the type, the output type and the input types of each node of the compiled model."""
    nodes = []
    for op in model.compiled(images.shape).get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in op.get_rt_info().items()}
        before = [each.get_node().get_rt_info()["layerType"] for each in op.input_values()]
        nodes.append({**info, "inputs": " ".join(each.astype(str) for each in before)})
    return nodes


@needs_vnni
@pytest.mark.parametrize("name", full_but(["mobilenet_v2", "resnet18", "lenet"], ["resnet18"]))
def test_openvino_runs_no_more_than_it_must(name: str, quantized: Any, tmp_path: Path) -> None:
    """Only the images have a separate quantize op, and weights are constants of the kernels."""
    pytest.importorskip("openvino", reason="openvino is an extra: make engines")
    from job.engine.openvino import convert as openvino

    network = quantized(name)
    _, model = converted(openvino, network.folder / "fake", tmp_path / "out")
    nodes = runtime(model, network.images[:1])
    layers = [node for node in nodes if node["layerType"] == "FullyConnected"]
    assert layers
    assert all(layer["inputs"].split()[1] == "Const" for layer in layers)
    kinds = [node["layerType"] for node in nodes]
    assert kinds.count("FakeQuantize") <= 1
    assert "Transpose" not in kinds


class Pruned(nn.Layer):
    """Batch-norm channels with factor 0, filters of zeros with a bias, and a relu that is 0."""

    def __init__(self) -> None:
        super().__init__()
        random = np.random.default_rng(1)

        def fixed(values: Any) -> Any:
            return nn.initializer.Assign(np.asarray(values, "float32"))

        filters = random.standard_normal((16, 16, 3, 3)) * 0.1
        filters[::2] = 0
        conv = nn.Conv2D
        self.first = conv(tiny.SHAPE[0], 16, 3, padding=1, bias_attr=False)
        self.norm = nn.BatchNorm2D(
            16,
            weight_attr=fixed([0.0] * 8 + [1.0] * 8),
            bias_attr=fixed(random.standard_normal(16)),
        )
        biases = fixed(random.standard_normal(16))
        self.second = conv(16, 16, 3, padding=1, weight_attr=fixed(filters), bias_attr=biases)
        self.idle = conv(16, 16, 1, bias_attr=fixed([-100.0] * 16))
        self.third = conv(16, 16, 1, bias_attr=fixed(random.standard_normal(16)))
        self.head = nn.Linear(16, tiny.CLASSES)

    def forward(self, x: Any) -> Any:
        relu = nn.functional.relu
        x = relu(self.second(relu(self.norm(self.first(x)))))
        x = relu(x + self.third(relu(self.idle(x))))
        return self.head(x.mean([2, 3]))


class Sliced(nn.Layer):
    """A convolution reads signed values of which a slice is taken."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2D(tiny.SHAPE[0], 16, 3, padding=1)
        self.second = nn.Conv2D(8, 16, 3, padding=1)
        self.head = nn.Linear(16, tiny.CLASSES)

    def forward(self, x: Any) -> Any:
        x = self.second(self.first(x)[:, :8])
        return self.head(nn.functional.relu(x).mean([2, 3]))


class Largest(nn.Layer):
    """The last layer reads the largest value of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2D(tiny.SHAPE[0], 16, 3, padding=1)
        self.head = nn.Linear(16, tiny.CLASSES)

    def forward(self, x: Any) -> Any:
        return self.head(nn.functional.relu(self.first(x)).max([2, 3]))


@needs_vnni
@pytest.mark.parametrize("network", [Pruned, Sliced, Largest])
def test_networks_with_odd_scales_compute_what_was_trained(
    network: type, engine: ModuleType, tmp_path: Path
) -> None:
    made = tiny.quantize(tiny.session_of(network, tiny.SHAPE, tiny.CLASSES), tmp_path)
    _, model = converted(engine, tmp_path / "fake", tmp_path / "out")
    found = agreement(model.outputs(made.images), (made.fake,), (made.fp32,))
    assert found.signal_to_noise_db > 20


def test_a_model_that_is_not_there(engine: ModuleType, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"/model\."):
        engine.open_model(tmp_path, 1)


@pytest.mark.full
def test_a_pool_that_onnx_does_not_know(quantized: Any, tmp_path: Path) -> None:
    """At 64 pixels, the output of VGG's adaptive pool is larger than its input."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: make engines")
    from job.engine.onnxruntime import convert as onnxruntime

    with pytest.raises(QuantizationError, match="strides must only contain positive"):
        converted(onnxruntime, quantized("vgg16").folder / "fake", tmp_path / "out")


def test_a_clip_of_the_network_is_no_pair(quantized: Any, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: make engines")
    import onnx

    from job.engine.onnxruntime import convert as onnxruntime

    network = read_network(quantized("convnet").folder / "fake")
    before, _ = converted(onnxruntime, quantized("convnet").folder / "fake", tmp_path / "before")
    op = next(op for op in network.ops if op.type == "relu")
    op.type = "clip"
    for name, bound in (("min", -1.0), ("max", 1.0)):
        op.attrs.add(name=name, type=1, f=bound)
    network.write(tmp_path / "fake")
    after, _ = converted(onnxruntime, tmp_path / "fake", tmp_path / "after")
    nodes = onnx.load(tmp_path / "after" / onnxruntime.MODEL).graph.node
    assert [node.op_type for node in nodes].count("Clip") == 1
    assert after["quantizers"] == before["quantizers"]


def test_a_model_that_onnx_runtime_refuses(
    quantized: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: make engines")
    from job.engine.onnxruntime import convert as onnxruntime
    from job.engine.onnxruntime import graph as onnx_graph

    def without_an_input(graph: onnx_graph.OnnxGraph) -> Any:
        graph.nodes[0].input[0] = "nothing"
        return finished(graph)

    finished = onnx_graph.OnnxGraph.finished
    monkeypatch.setattr(onnx_graph.OnnxGraph, "finished", without_an_input)
    with pytest.raises(QuantizationError, match=r"ONNX Runtime .*nothing"):
        converted(onnxruntime, quantized("convnet").folder / "fake", tmp_path / "out")


@pytest.mark.parametrize(
    ("op", "type_", "says"),
    [
        ("Relu", "BOOL", "Type 'tensor(bool)'"),
        ("Conv", "DOUBLE", "Could not find an implementation"),
    ],
)
def test_a_model_whose_ops_onnx_runtime_does_not_have(
    op: str, type_: str, says: str, quantized: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra: make engines")
    import onnx

    from job.engine.onnxruntime import convert as onnxruntime
    from job.engine.onnxruntime import graph as onnx_graph

    x, w, y = (
        onnx.helper.make_tensor_value_info(name, getattr(onnx.TensorProto, type_), [1, 1, 1, 1])
        for name in "xwy"
    )
    inputs = [x, w] if op == "Conv" else [x]
    node = onnx.helper.make_node(op, [each.name for each in inputs], ["y"])
    graph = onnx.helper.make_graph([node], "made up", inputs, [y])
    opset = onnx.helper.make_opsetid("", onnxruntime.OPSET)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=8)
    monkeypatch.setattr(onnx_graph.OnnxGraph, "finished", lambda _: model)
    with pytest.raises(QuantizationError, match=f"ONNX Runtime .*{re.escape(says)}"):
        converted(onnxruntime, quantized("convnet").folder / "fake", tmp_path / "out")


def test_a_model_that_openvino_cannot_read(quantized: Any, tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="openvino is an extra: make engines")
    from job.engine.openvino import convert as openvino

    network = read_network(quantized("convnet").folder / "fake")
    next(op for op in network.ops if op.type == "relu").type = "unknown_to_openvino"
    network.write(tmp_path / "fake")
    with pytest.raises(QuantizationError, match=r"OpenVINO cannot read the model"):
        converted(openvino, tmp_path / "fake", tmp_path / "out")
