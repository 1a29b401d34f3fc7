"""Types that all packages share."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

OnStep = Callable[[int, Mapping[str, float]], None]
"""Called while fitting with a step number and the metrics of that step, for curves and progress."""
