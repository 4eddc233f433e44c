"""Scenes of digits as a source; see ``job.detection.scenes``."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from job.data.sources import digits
from job.data.transforms import Image, Ints
from job.detection.annotations import Annotations
from job.detection.scenes import CLASSES, Scenes, SceneSettings

WHERE = "digit_scenes"
# A scene is made when it is read, so a large number takes no time.
TRAINING_SCENES = 20_000
TEST_SCENES = 400
SELECTION_SCENES = 128
_SEEDS = {"train": 1, "selection": 2, "val": 3}
# Every fifth digit is in the scenes of the test only.
_TEST_SHARE = 5


@dataclass(frozen=True, eq=False)
class SceneImages:
    """Scenes, which are made when they are read; the same scenes each time.

    Attributes:
        scenes: makes the scenes.
        labels: int64 ``[n]``, 0.
        part: name of the split.
        where: name of the data set.
        class_names: name of each class.
        normalised: False; see ``Source``.
    """

    scenes: Scenes
    labels: Ints
    part: str
    where: str = WHERE
    class_names: Sequence[str] = CLASSES
    normalised: bool = False

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def channels(self) -> int:
        """The images' channels."""
        return self.scenes.settings.channels

    @property
    def names(self) -> Sequence[str]:
        """``digit_scenes/split#number``."""
        return [f"{self.where}/{self.part}#{number}" for number in range(len(self))]

    def read(self, index: int) -> Image:
        """Return an image, uint8 ``[height, width, channels]``."""
        return self.read_labelled(index)[0]

    def read_labelled(self, index: int) -> tuple[Image, Annotations]:
        """See ``LabelledSource``."""
        return self.scenes(index)


def digit_scenes(shape: tuple[int, int, int]) -> dict[str, SceneImages]:
    """Return the scenes of each split, by ``train``, ``selection`` and ``val``.

    The scenes of the test contain other digits than the training scenes.

    Args:
        shape: channels, height, width of a scene.
    """
    channels, height, width = shape
    loaded = digits(1)
    gray, labels = loaded.images[..., 0], loaded.labels
    in_test = np.arange(len(labels)) % _TEST_SHARE == 0
    side = min(height, width)
    settings = SceneSettings(
        size=(height, width),
        channels=channels,
        small=(3, 5, round(side / 6), round(0.27 * side)),
        large=(1, 1, round(0.46 * side), round(0.67 * side)),
    )
    counts = {"train": TRAINING_SCENES, "selection": SELECTION_SCENES, "val": TEST_SCENES}
    return {
        part: SceneImages(
            Scenes(
                gray[in_test == (part == "val")],
                labels[in_test == (part == "val")],
                _SEEDS[part],
                settings,
            ),
            np.zeros(count, np.int64),
            part,
        )
        for part, count in counts.items()
    }
