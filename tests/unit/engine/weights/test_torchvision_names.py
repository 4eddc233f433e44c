"""Names of torchvision's networks; tests/compare_torchvision.py compares the scores."""

import numpy as np
import pytest

from job.engine.weights.torch_names import for_paddle
from job.engine.weights.torchvision_names import difference, from_torchvision

PAIRS = {
    "alexnet": {"_conv2._conv.weight": "features.3.weight", "_fc8.bias": "classifier.6.bias"},
    "densenet": {
        "conv1_func._conv.weight": "features.conv0.weight",
        "db_conv_2.conv2_1.bn_ac_func2._batch_norm._mean": (
            "features.denseblock1.denselayer1.norm2.running_mean"
        ),
        "db_conv_5.conv5_16.bn_ac_func1._conv.weight": (
            "features.denseblock4.denselayer16.conv1.weight"
        ),
        "tr_conv2_blk.conv_ac_func._batch_norm.bias": "features.transition1.norm.bias",
        "out.bias": "classifier.bias",
    },
    "shufflenet": {
        "_conv1.1._variance": "conv1.1.running_var",
        "2_1._conv_linear_1.1.bias": "stage2.0.branch1.3.bias",
        "2_1._conv_dw_2.0.weight": "stage2.0.branch2.3.weight",
        "4_3._conv_linear.1.bias": "stage4.2.branch2.6.bias",
        "_last_conv.0.weight": "conv5.0.weight",
    },
    "mobilenet_v3": {
        "conv.0.weight": "features.0.0.weight",
        # Blocks differ: not all have an expansion or a squeeze-and-excitation.
        "blocks.0.bottleneck_conv.0.weight": "features.1.block.0.0.weight",
        "blocks.0.mid_se.fc1.weight": "features.1.block.1.fc1.weight",
        "blocks.0.linear_conv.0.weight": "features.1.block.2.0.weight",
        "blocks.1.expand_conv.0.weight": "features.2.block.0.0.weight",
        "blocks.1.bottleneck_conv.0.weight": "features.2.block.1.0.weight",
        "blocks.1.linear_conv.0.weight": "features.2.block.2.0.weight",
        "lastconv.1.bias": "features.3.1.bias",
        "classifier.3.bias": "classifier.3.bias",
    },
}


@pytest.mark.parametrize("network", PAIRS)
def test_names(network: str) -> None:
    pairs = PAIRS[network]
    given = {theirs: np.full(3, number) for number, theirs in enumerate(pairs.values())}
    # A file with sorted names, as safetensors has.
    found = for_paddle(dict(sorted(given.items())), dict.fromkeys(pairs, (3,)), is_torch=True)
    for ours, theirs in pairs.items():
        np.testing.assert_array_equal(found[ours], given[theirs])


def test_the_names_of_published_densenets() -> None:
    found = from_torchvision(
        {"features.denseblock1.denselayer2.norm.1.bias": np.zeros(1)},
        ["db_conv_2.conv2_2.bn_ac_func1._batch_norm.bias"],
    )
    assert list(found) == ["db_conv_2.conv2_2.bn_ac_func1._batch_norm.bias"]


def test_other_files_are_unchanged() -> None:
    given = {"features.0.weight": np.zeros(1)}
    assert from_torchvision(given, ["conv.weight"]) is given
    # One missing weight: the error must list the names of the file.
    assert from_torchvision(given, ["_conv1._conv.weight", "_conv1._conv.bias"]) is given


def test_dropout_and_epsilon_of_paddle_are_compensated() -> None:
    ones = np.ones(2, "float32")
    alexnet = from_torchvision({"classifier.1.weight": ones}, ["_fc6.weight"])
    np.testing.assert_array_equal(alexnet["_fc6.weight"], 2 * ones)
    wanted = ["inception_block_list.0.branch_pool_conv.1._variance", "fc.weight", "fc.bias"]
    given = {"Mixed_5b.branch_pool.bn._variance": ones, "fc.weight": ones, "fc.bias": ones}
    found = from_torchvision(given, wanted)
    np.testing.assert_allclose(found[wanted[0]], ones + 0.00099)
    np.testing.assert_allclose(found["fc.weight"], ones / 0.8)
    np.testing.assert_array_equal(found["fc.bias"], ones)
    assert {values.dtype for values in found.values()} == {np.dtype("float32")}


def test_networks_with_other_layers_are_named() -> None:
    assert difference("squeezenet1_1", {"features.3.squeeze.weight": 0})
    assert difference("googlenet", {"inception3a.branch1.conv.weight": 0})
    assert difference("squeezenet1_1", {"_conv.weight": 0}) == ""
    assert difference("resnet18", {"features.3.squeeze.weight": 0}) == ""
