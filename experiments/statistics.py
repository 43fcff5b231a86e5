"""The statistics of few repetitions: SciPy's and statsmodels' functions, with our conventions."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.05
POWER = 0.8
# All sign flips of 16 pairs; of more pairs as many are drawn.
_FLIPS = 2**16


@dataclass(frozen=True)
class Summary:
    """Repetitions of one thing.

    Attributes:
        n: How many there are.
        mean: Their mean.
        sd: Their standard deviation (n - 1), or `None` of one alone.
        low: Lower end of the mean's 95 % interval by Student's t, or `None`.
        high: Its upper end, or `None`.
    """

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


def summarize(values: Sequence[float]) -> Summary:
    """Number, mean, standard deviation and 95 % interval of values."""
    values = np.asarray(values, float)
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Summary(n, mean, None, None, None)
    low, high = t_interval(values)
    return Summary(n, mean, float(np.std(values, ddof=1)), float(low), float(high))


def t_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The 95 % interval of the means along the last axis, by Student's t."""
    from scipy import stats

    n = values.shape[-1]
    half = stats.t.ppf(1 - LEVEL / 2, n - 1) * np.std(values, ddof=1, axis=-1) / np.sqrt(n)
    mean = np.mean(values, axis=-1)
    return mean - half, mean + half


def sign_flip_p(differences: np.ndarray) -> np.ndarray:
    """Two-sided p that paired differences are as likely to be positive as negative.

    Exact for up to 16 pairs, otherwise from 65,536 random flips. Its smallest value is
    `smallest_p(n)`.

    Args:
        differences: (…, n).
    """
    from scipy import stats

    return stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=_FLIPS,
        axis=-1,
        rng=0,
    ).pvalue


def smallest_p(n: int) -> float:
    """The smallest two-sided p of the sign-flip test of n pairs."""
    return 2.0 ** (1 - n)


def pairs_needed(level: float) -> int:
    """The least number of pairs with which the sign-flip test can reach a level."""
    return int(np.ceil(1 - np.log2(level)))


def unpaired_p(a: Sequence[float], b: Sequence[float]) -> float:
    """Two-sided p that two independent samples have one distribution, by permutation of means."""
    from scipy import stats

    return float(
        stats.permutation_test(
            (a, b),
            lambda x, y, axis: np.mean(y, axis=axis) - np.mean(x, axis=axis),
            vectorized=True,
            n_resamples=_FLIPS,
            rng=0,
        ).pvalue
    )


def welch_interval(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """Welch's 95 % interval of mean(b) - mean(a) of two independent samples."""
    from scipy import stats

    interval = stats.ttest_ind(b, a, equal_var=False).confidence_interval(1 - LEVEL)
    return float(interval.low), float(interval.high)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Exact two-sided p of McNemar's test.

    Args:
        only_a: Images that the first of two models alone classified rightly.
        only_b: Images that the second alone did.
    """
    from statsmodels.stats.contingency_tables import mcnemar

    return float(mcnemar([[0, only_a], [only_b, 0]], exact=True).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p of several tests, adjusted so that all together keep the level (Holm)."""
    from statsmodels.stats.multitest import multipletests

    return [float(p) for p in multipletests(p_values, method="holm")[1]] if len(p_values) else []


def detectable(sd: float, n: int, tests: int = 1) -> float:
    """The difference that n pairs find with 80 % probability, by the paired t test.

    Args:
        sd: Standard deviation of the paired differences.
        n: Number of pairs, at least two.
        tests: How many comparisons share the level of 5 %.
    """
    from statsmodels.stats.power import TTestPower

    effect = TTestPower().solve_power(nobs=n, alpha=LEVEL / tests, power=POWER)
    return float(np.squeeze(effect)) * sd
