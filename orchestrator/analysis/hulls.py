"""What does a router's frontier look like on average over splits?"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

#: Costs (in units of c_ref) at which hulls are averaged.
COST_GRID: npt.NDArray[np.float64] = np.linspace(0.0, 1.0, 401)


def mean_hulls(frontier: pd.DataFrame, unit_keys: pd.Series[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Average hulls over splits, router by router.

    Each split's hull runs from (0, 0) through its hull vertices, straight between them, and flat to the right; the
    mean is taken over splits at every cost of `COST_GRID`. A mean of concave curves is concave, of mean area.

    Args:
        frontier: The view `frontier`: columns unit_key, router, cost, score, on_hull.
        unit_keys: The units to average.

    Returns:
        Mean score at each grid cost, routers by name. [n_grid]
    """
    rows = frontier[frontier["unit_key"].isin(unit_keys) & frontier["on_hull"].astype(bool)]
    hulls: dict[str, list[npt.NDArray[np.float64]]] = {}
    rows = rows.sort_values(["cost", "score"], kind="stable")
    for (router, _), points in rows.groupby(["router", "unit_key"], sort=True):
        cost = np.concatenate([[0.0], points["cost"].to_numpy(dtype=np.float64)])
        score = np.concatenate([[0.0], points["score"].to_numpy(dtype=np.float64)])
        hulls.setdefault(str(router), []).append(np.interp(COST_GRID, cost, score))
    return {router: np.mean(curves, axis=0) for router, curves in hulls.items()}
