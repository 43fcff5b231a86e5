from itertools import product

import numpy as np
import pytest

from experiments import comparing, statistics

LEVEL = statistics.LEVEL


def test_the_sign_flip_test_counts_all_flips():
    differences = np.random.default_rng(0).normal(0.5, 1, 6)
    means = [abs(np.mean(differences * signs)) for signs in product((-1, 1), repeat=6)]
    expected = np.mean([mean >= abs(np.mean(differences)) - 1e-12 for mean in means])
    assert statistics.sign_flip_p(differences) == pytest.approx(expected)
    assert statistics.sign_flip_p(np.array([1.0, 2, 3])) == statistics.smallest_p(3) == 0.25
    assert statistics.smallest_p(statistics.pairs_needed(LEVEL)) <= LEVEL
    assert statistics.smallest_p(statistics.pairs_needed(LEVEL) - 1) > LEVEL


@pytest.mark.parametrize(("n", "reachable"), [(6, 1 / 32), (8, 6 / 128)])
def test_equal_groups_are_rejected_at_the_level(n, reachable):
    # Of n pairs p is a multiple of 2 / 2**n, so that the level cannot be met exactly.
    studies = 4000
    differences = np.random.default_rng(n).normal(size=(studies, n))
    rejected = np.mean(statistics.sign_flip_p(differences) <= LEVEL)
    assert abs(rejected - reachable) < 4 * np.sqrt(LEVEL * (1 - LEVEL) / studies)
    low, high = statistics.t_interval(differences)
    missed = np.mean((low > 0) | (high < 0))
    assert abs(missed - LEVEL) < 4 * np.sqrt(LEVEL * (1 - LEVEL) / studies)


def test_many_equal_groups_together_keep_the_level(monkeypatch):
    monkeypatch.setattr("gc.collect", int)  # statsmodels calls it every time, which takes 0.1 s
    studies, tests = 500, 4
    differences = np.random.default_rng(0).normal(size=(studies, tests, 8))
    p_values = statistics.sign_flip_p(differences)
    found = np.mean([min(statistics.holm(p)) <= LEVEL for p in p_values])
    assert found < LEVEL + 4 * np.sqrt(LEVEL * (1 - LEVEL) / studies)
    assert np.mean(p_values.min(axis=1) <= LEVEL) > 2 * LEVEL  # unadjusted they do not
    assert statistics.holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])


def test_mcnemar_keeps_its_level_and_sees_what_is_there():
    rng = np.random.default_rng(0)
    # Two models of equal accuracy that disagree on every fifth of 300 images.
    discordant = rng.binomial(300, 0.2, 1000)
    only_first = rng.binomial(discordant, 0.5)
    p_values = [statistics.mcnemar_p(a, n - a) for a, n in zip(only_first, discordant, strict=True)]
    assert np.mean(np.array(p_values) <= LEVEL) < LEVEL + 0.02
    assert np.mean(np.array(p_values) <= 0.5) > 0.3
    assert statistics.mcnemar_p(10, 2) == pytest.approx(2 * (1 + 12 + 66) / 2**12)
    assert statistics.mcnemar_p(0, 0) == 1


@pytest.mark.parametrize(("n", "effect"), [(3, 3.26), (5, 1.68), (10, 1.0), (30, 0.53)])
def test_the_detectable_difference_is_found_with_its_power(n, effect):
    detectable = statistics.detectable(1.0, n)
    assert detectable == pytest.approx(effect, abs=0.01)
    low, high = statistics.t_interval(
        np.random.default_rng(n).normal(detectable, 1, size=(4000, n))
    )
    assert np.mean((low > 0) | (high < 0)) == pytest.approx(statistics.POWER, abs=0.03)


def test_unpaired_groups():
    a, b = [0.1, 0.2, 0.3, 0.4], [1.1, 1.2, 1.3, 1.4]
    assert statistics.unpaired_p(a, b) == pytest.approx(2 / 70)
    low, high = statistics.welch_interval(a, b)
    assert low < 1 < high
    assert high - 1 == pytest.approx(2.4469 * np.sqrt(2 * np.var(a, ddof=1) / 4), rel=1e-4)


def test_a_single_run_has_no_spread():
    summary = statistics.summarize([0.5])
    assert (summary.n, summary.mean, summary.sd, summary.low) == (1, 0.5, None, None)
    comparison = comparing.Comparison("a", "b", paired=True, n=1, difference=0.1)
    assert comparing.verdict(comparison, tests=0).startswith("n = 1 cannot show it")
