"""A page of test images with the boxes of FP32 and of INT8 side by side."""

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image as PillowImage

from job.detection import boxes as box_arrays
from job.detection.annotations import Annotations, Detections
from job.detection.geometry import Pixels
from job.text_format import plural

# Detections with a lower score are not drawn.
SHOWN_SCORE = 0.3
MAX_IMAGES = 24
_SAME_IOU = 0.5
_QUALITY = 88
_STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 1000px; margin: 0 auto; padding: 24px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 12px; margin: 4px 0 28px; }
figure { margin: 0; }
svg { width: 100%; height: auto; display: block; }
rect { fill: none; stroke-width: 1.5px; vector-effect: non-scaling-stroke; }
.object { stroke: #fff; stroke-dasharray: 3 3; }
.fp32 { stroke: #6f9fe0; }
.int8 { stroke: #3cc39a; }
.only { stroke-width: 3.5px; }
text { fill: #fff; paint-order: stroke; stroke: #000; stroke-width: 0.25em; }
"""


def comparison_page(
    images: npt.NDArray[np.float32],
    objects: Sequence[Annotations],
    found: tuple[Sequence[Detections], Sequence[Detections]],
    class_names: Sequence[str],
    *,
    normalisation: tuple[Sequence[float], Sequence[float]],
) -> str:
    """Return the page as HTML without references to other files.

    Half of the images are those on which FP32 and INT8 differ most. The other half are spread over
    the rest of the test split. Dashed boxes are the objects. A thick box was found by one model
    only.

    Args:
        images: float32 ``[n, channels, h, w]``, normalized; one or three channels.
        objects: the objects of each image.
        found: detections of FP32 and of INT8 for each image.
        class_names: the name of each class.
        normalisation: mean and standard deviation of the images, one value or one per channel.
    """
    fp32, int8 = found
    differences = np.array([_alone(*pair) for pair in zip(fp32, int8, strict=True)])
    chosen = chosen_images(differences)
    parts = []
    for index in chosen:
        picture = _jpeg(_pixels(images[index], *normalisation))
        figures = "".join(
            _figure(model, index, images.shape[2:], objects[index], *pair, class_names)
            for model, pair in (
                ("fp32", (fp32[index], int8[index])),
                ("int8", (int8[index], fp32[index])),
            )
        )
        height, width = images.shape[2:]
        parts.append(
            f"<h2>Test image {index}: {plural(int(differences[index]), 'detection')} found by "
            f"one model only</h2>"
            f'<svg width="0" height="0" style="position:absolute"><defs><image id="image-{index}" '
            f'width="{width}" height="{height}" href="data:image/jpeg;base64,{picture}"/></defs>'
            f'</svg><div class="pair">{figures}</div>'
        )
    title = "Test images with the boxes of FP32 and INT8"
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style><h1>{title}</h1>"
        f"<p>{len(chosen)} of {plural(len(images), 'test image')}. Half of them are the images on "
        "which FP32 and INT8 differ most. Dashed: the objects. Thick: found by one model only. "
        f"Boxes with a score below {SHOWN_SCORE:g} are not shown.</p>"
        f"{''.join(parts)}</html>\n"
    )


def chosen_images(differences: npt.NDArray[np.int64]) -> list[int]:
    """Return the numbers of the images to show, those with the largest differences first."""
    order = np.argsort(-differences, kind="stable")
    half = min(MAX_IMAGES // 2, len(order))
    rest = np.sort(order[half:])
    count = min(MAX_IMAGES - half, len(rest))
    spread = rest[np.linspace(0, len(rest) - 1, count).round().astype(int)] if count else rest[:0]
    return [*order[:half].tolist(), *spread.tolist()]


def _shown(found: Detections) -> Detections:
    kept = found.scores >= SHOWN_SCORE
    return Detections(found.boxes[kept], found.scores[kept], found.classes[kept])


def _matched(found: Detections, other: Detections) -> npt.NDArray[np.bool_]:
    """Return for each detection whether the other model has a similar one of the same class."""
    if not len(other):
        return np.zeros(len(found), np.bool_)
    similar = box_arrays.iou(found.boxes, other.boxes) >= _SAME_IOU
    equal = found.classes[:, None] == other.classes[None, :]
    result: npt.NDArray[np.bool_] = (similar & equal).any(axis=1)
    return result


def _alone(first: Detections, second: Detections) -> int:
    one, two = _shown(first), _shown(second)
    return int((~_matched(one, two)).sum() + (~_matched(two, one)).sum())


def _pixels(image: npt.NDArray[np.float32], mean: Sequence[float], std: Sequence[float]) -> Pixels:
    channels = np.asarray(mean).reshape(-1, 1, 1), np.asarray(std).reshape(-1, 1, 1)
    levels = 255 * (image * channels[1] + channels[0])
    pixels: Pixels = np.clip(np.rint(levels), 0, 255).astype(np.uint8).transpose(1, 2, 0)
    return pixels


def _jpeg(pixels: Pixels) -> str:
    """Return an image as JPEG in base64."""
    plane = pixels if pixels.shape[2] == 3 else pixels[..., 0]
    buffer = io.BytesIO()
    PillowImage.fromarray(np.ascontiguousarray(plane)).save(buffer, "JPEG", quality=_QUALITY)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _figure(
    model: str,
    index: int,
    size: tuple[int, ...],
    objects: Annotations,
    found: Detections,
    other: Detections,
    class_names: Sequence[str],
) -> str:
    height, width = size
    shown = _shown(found)
    both = _matched(shown, _shown(other))
    marks = [_rect(box, "object") for box in objects.boxes]
    for box, score, label, common in zip(
        shown.boxes, shown.scores, shown.classes, both, strict=True
    ):
        marks.append(_rect(box, model if common else f"{model} only"))
        text = html.escape(f"{class_names[int(label)]} {score:.2f}")
        marks.append(f'<text x="{box[0]:.1f}" y="{box[1] - 1:.1f}">{text}</text>')
    return (
        f'<figure><svg viewBox="0 0 {width} {height}" font-size="{max(height, width) / 34:.1f}">'
        f'<use href="#image-{index}"/>{"".join(marks)}</svg>'
        f"<figcaption>{model.upper()}: {plural(len(shown), 'detection')}</figcaption></figure>"
    )


def _rect(box: npt.NDArray[np.float64], kind: str) -> str:
    x0, y0, x1, y1 = box.tolist()
    return (
        f'<rect class="{kind}" x="{x0:.1f}" y="{y0:.1f}" width="{x1 - x0:.1f}" '
        f'height="{y1 - y0:.1f}"/>'
    )
