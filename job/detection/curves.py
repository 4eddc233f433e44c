"""Precision and recall of each class as short lists, for records and plots."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from job.detection.precision_recall import Ranking, envelope

MAX_POINTS = 100
_DIGITS = 4


def curves(ranked: Sequence[Ranking]) -> list[dict[str, Any]]:
    """Return the curve of each class that has objects, see ``Ranking.curve``.

    Precision is the best precision at a recall or above, as in VOC's average precision. A curve has
    at most 100 points.

    Args:
        ranked: the ranking of each class.

    Returns:
        For each class ``label``, ``recall`` (ascending) and ``precision``, 0 to 1.
    """
    found = []
    for label, ranking in enumerate(ranked):
        if not ranking.positives.any():
            continue
        recall, precision = ranking.curve()
        kept = np.unique(np.linspace(0, max(len(recall) - 1, 0), MAX_POINTS).round().astype(int))
        kept = kept[: len(recall)]
        found.append(
            {
                "label": label,
                "recall": recall[kept].round(_DIGITS).tolist(),
                "precision": envelope(precision)[kept].round(_DIGITS).tolist(),
            }
        )
    return found
