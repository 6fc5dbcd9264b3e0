"""The speed of the responses, and the quality of the predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd


@dataclass(frozen=True, slots=True)
class Speed:
    """Responses per second, and the median and 99th percentile of the latency in milliseconds."""

    per_second: float
    p50: float
    p99: float

    @classmethod
    def of(cls, answers: npt.NDArray[np.void]) -> Speed:
        """Return the speed of at least one response, records of type `replay.ANSWER`."""
        started = float((answers["finished"] - answers["latency"]).min())
        p50, p99 = 1000 * np.quantile(answers["latency"], (0.5, 0.99))
        return cls(len(answers) / (float(answers["finished"].max()) - started), float(p50), float(p99))


def accuracy(probability: npt.NDArray[np.float32], late: npt.NDArray[np.bool_]) -> float:
    """Return the share of flights for which the more probable outcome came true."""
    return float(((probability > 0.5) == late).mean())


def auc(probability: npt.NDArray[np.float32], late: npt.NDArray[np.bool_]) -> float:
    """Return the probability that a late flight was predicted more likely to be late than one in time.

    The area under the ROC curve, from the ranks of the late flights (Mann and Whitney, 1947); NaN if all
    flights had the same outcome.
    """
    positive = int(late.sum())
    pairs = positive * (len(late) - positive)
    if pairs == 0:
        return float("nan")
    ranks = pd.Series(probability).rank().to_numpy()
    return float((ranks[late].sum() - positive * (positive + 1) / 2) / pairs)
