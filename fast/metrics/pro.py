"""Per-region overlap (PRO; Bergmann et al. 2021, "The MVTec Anomaly Detection Dataset"): how much of each defect is
found, a pinhole counting as much as a gash.

A region is an 8-connected component of a true mask at the resolution of the evaluation: masks are resized first
(`Views`), and what touches then is one region. Of a picture that is cut in tiles the whole mask is taken.
"""

from __future__ import annotations

import cv2
import numpy as np

LIMIT = 0.3  # highest false-positive rate of the area


def shares(mask: np.ndarray) -> tuple[np.ndarray, int]:
    """Of a mask bool (H,W): float64 (H,W), 1 / pixels of its region for a defect pixel and 0 elsewhere; and the number
    of regions. The sum of the shares of the pixels found is the sum of the regions' recalls."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    weights = 1.0 / stats[:, cv2.CC_STAT_AREA].clip(1)
    weights[0] = 0.0
    return weights[labels], count - 1


def area_under_pro(good: np.ndarray, share: np.ndarray, regions: int, limit: float = LIMIT) -> float | None:
    """Area under the mean recall of the regions over the false-positive rate from 0 to `limit`, divided by `limit`.

    Every distinct score is a threshold. The rate is over all good pixels, those of pictures with a defect, too.
    Straight lines join the points from (0, 0) on, which counts pixels of one score as if found in random order, and the
    curve is cut at `limit`. A detector that knows nothing has limit / 2.

    Args:
        good, share: (N,), number of good pixels and sum of `shares` at each of N scores, in rising order.
        regions: number of regions in all pictures.
        limit: highest false-positive rate.

    Returns:
        The area. None without a region or a good pixel.
    """
    if not regions or not good.sum():
        return None
    used = np.flatnonzero((good > 0) | (share > 0))[::-1]
    rate = np.append(0.0, np.cumsum(good[used]) / good.sum())
    recall = np.append(0.0, np.cumsum(share[used]) / regions)
    inside = rate <= limit
    x = np.append(rate[inside], limit)
    y = np.append(recall[inside], np.interp(limit, rate, recall))
    return float(np.minimum(np.trapezoid(y, x) / limit, 1.0))
