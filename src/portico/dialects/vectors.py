"""What both dialects do with an embedding."""

from __future__ import annotations

import math
from collections.abc import Sequence


def normalised(vector: Sequence[float], dimensions: int | None = None) -> list[float]:
    """The first `dimensions` numbers of `vector`, scaled to length 1. A zero vector stays one."""
    cut = list(vector if dimensions is None else vector[:dimensions])
    length = math.sqrt(math.fsum(number * number for number in cut))
    return [number / length for number in cut] if length > 0 else cut
