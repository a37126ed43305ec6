"""The axis of a chart: where its ticks are."""

import math


def ticks(low: float, high: float, least: float = 0.005) -> list[float]:
    """Two to eight round numbers, at least so far apart, from `low` or below to `high` or above."""
    wide = max(high - low, 5 * least) / 5
    power = 10.0 ** math.floor(math.log10(wide))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= wide - 1e-12)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [number * step for number in range(min(first, last - 1), last + 1)]
