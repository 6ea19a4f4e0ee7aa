"""The link budget bites: on the shipped munich drops scheduling matters, and nobody saturates."""

import jax
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g import mac
from jaxrl5g.evaluation import evaluate, paired_bootstrap


@pytest.fixture(scope="module")
def metrics():
    env, params = jaxrl5g.make("MunichDownlink-v0", split="validation")
    schedulers = {
        "pf": mac.proportional_fair(),
        "rr": mac.round_robin(),
        "max_rate": mac.max_rate(),
    }
    key = jax.random.key(0)
    return {
        name: evaluate(env, params, scheduler, key, num_drops=32)
        for name, scheduler in schedulers.items()
    }


def difference(metrics, one, other, field):
    """Mean paired difference over drops relative to `other`, with its 99 % interval."""
    return paired_bootstrap(
        getattr(metrics[one], field),
        getattr(metrics[other], field),
        relative=True,
        confidence=0.99,
        num_resamples=2000,
    )


@pytest.mark.parametrize("better, worse", [("max_rate", "pf"), ("pf", "rr"), ("max_rate", "rr")])
def test_cell_throughput_differs(metrics, better, worse):
    gain = difference(metrics, better, worse, "cell_throughput")
    assert gain.low > 0
    assert gain.value > 0.05


@pytest.mark.parametrize("fairer, other", [("pf", "max_rate"), ("rr", "max_rate")])
def test_fairness_differs(metrics, fairer, other):
    gain = difference(metrics, fairer, other, "jain")
    assert gain.low > 0
    assert gain.value > 0.1


def test_proportional_fair_is_fairer_than_round_robin(metrics):
    assert difference(metrics, "pf", "rr", "jain").low > 0


def test_the_top_mcs_is_not_the_rule(metrics):
    assert metrics["pf"].top_mcs_share.mean() < 1 / 3
    # and users spread over the range: the best has several times the throughput of the worst
    users = metrics["pf"].user_throughput
    assert np.nanmedian(np.nanmax(users, (1, 2)) / np.nanmin(users, (1, 2))) > 2
