"""Shapes as oneDNN 3.6 logged them for ResNet50, MobileNetV2 and VGG16."""

import pytest

from job.profile import shapes

FIRST = "mb1_ic3oc64_ih224oh112kh7sh2dh0ph3_iw224ow112kw7sw2dw0pw3"
DEPTHWISE = "g144mb1_ic144oc144_ih56oh28kh3sh2dh0ph1_iw56ow28kw3sw2dw0pw1"
LAST = "mb2ic2048oc1000"
POOL = "mb1ic64_ih112oh56kh3sh2dh0ph1_iw112ow56kw3sw2dw0pw1"


@pytest.mark.parametrize(
    ("shape", "multiplications", "weights", "values"),
    [
        # ResNet's first layer has 118 million multiplications.
        (FIRST, 118_013_952, 64 * 3 * 49, 3 * 224 * 224 + 64 * 112 * 112),
        (DEPTHWISE, 144 * 9 * 28 * 28, 144 * 9, 144 * (56 * 56 + 28 * 28)),
        (LAST, 2 * 2048 * 1000, 2048 * 1000, 2 * (2048 + 1000)),
        ("mb1ic512oc4096_ih7iw7", 25088 * 4096, 25088 * 4096, 25088 + 4096),
        ("8x512:512x1000", 8 * 512 * 1000, 512 * 1000, 8 * (512 + 1000)),
        ("2x8x512:1x512x1000", 16 * 512 * 1000, 512 * 1000, 16 * (512 + 1000)),
        (POOL, 0, 0, 0),
        ("1x64x56x56", 0, 0, 0),
    ],
)
def test_work(shape, multiplications, weights, values):
    assert shapes.work(shape) == (multiplications, weights, values)


def test_depthwise_has_a_group_for_each_channel():
    assert shapes.is_depthwise(DEPTHWISE)
    assert not shapes.is_depthwise(FIRST)
    assert not shapes.is_depthwise(DEPTHWISE.replace("g144", "g12"))
    assert not shapes.is_depthwise("1x64x56x56")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        (FIRST, "7×7/2 3→64, 224×224"),
        (DEPTHWISE, "3×3/2 depthwise 144, 56×56"),
        (DEPTHWISE.replace("g144", "g12"), "3×3/2 144→144 in 12 groups, 56×56"),
        (LAST, "2048→1000"),
        ("mb1ic512oc4096_ih7iw7", "512→4096, 7×7"),
        ("8x512:512x1000", "8×512 · 512×1000"),
        (POOL, "3×3/2 64, 112×112"),
        ("1x64x56x56", "1×64×56×56"),
    ],
)
def test_words(shape, expected):
    assert shapes.words(shape) == expected
