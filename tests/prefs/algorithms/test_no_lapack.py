"""No learner calls LAPACK: batched, such calls can stand still for ever on several devices."""

import jax
import pytest

from prefs.algorithms import (
    DPSConfig,
    PbTSConfig,
    PRLSVIConfig,
    dueling_posterior_sampling,
    pbts,
    pr_lsvi,
)
from prefs.algorithms.links import Logistic
from prefs.mdps import random_episodic


@pytest.mark.parametrize(
    "module, config",
    [
        (pr_lsvi, PRLSVIConfig(episodes=20)),
        (pbts, PbTSConfig(episodes=20)),
        (pbts, PbTSConfig(episodes=20, posterior="polya_gamma")),
        (dueling_posterior_sampling, DPSConfig(episodes=20)),
    ],
)
def test_programs_are_plain_xla(module, config):
    def run(key):
        return module.make_train(config, random_episodic(key), Logistic(8.0))(key)

    keys = jax.random.split(jax.random.key(0), 2)
    program = jax.jit(jax.vmap(run)).lower(keys).as_text()
    assert "while" in program and "lapack" not in program
