"""The page on extending `prefs` is one program that runs, and its examples are what it says."""

import re
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.feedback import Segments

PAGE = Path(__file__).parents[2] / "docs" / "prefs-extending.md"


@pytest.fixture(scope="module")
def page():
    """What all code blocks of the page define, run in order in one module."""
    module = ModuleType("prefs_extending_page")
    text = PAGE.read_text(encoding="utf-8")
    for found in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        line = text[: found.start(1)].count("\n")
        exec(compile("\n" * line + found.group(1), str(PAGE), "exec"), module.__dict__)
    return module


def test_the_ring_is_a_problem_that_is_solved(page):
    # one cell pays: the best that there is is to stay about it, and the solver finds it
    best = page.mdps.hard_optimal(page.mdp)
    np.testing.assert_allclose(page.mdp.transition.sum(-1), 1, rtol=1e-6)
    pays = int(jnp.argmax(page.mdp.reward[:, 0]))
    size = page.mdp.num_states
    assert int(jnp.argmax(best.policy[(pays + 1) % size])) == 0
    assert int(jnp.argmax(best.policy[(pays - 1) % size])) == 1
    assert not page.entry["Ring-v0"].build(jax.random.key(0), size=4).reward.shape[0] == size


def test_the_room_keeps_the_contract(page):
    @jax.jit
    def warm(params):
        carry = page.room.env.reset(jax.random.key(0), params)

        def step(carry, key):
            found = page.room.env.step(key, carry[1], jnp.int32(1), params)
            return found[:2], found[2:]

        return jax.lax.scan(step, carry, jax.random.split(jax.random.key(1), 45))

    _, (reward, terminated, truncated, info) = warm(page.room.params)
    assert not terminated.any()
    assert np.flatnonzero(truncated).tolist() == [19, 39]
    assert info["final_observation"].shape == (45, 1)
    # heated all the time, the room ends as warm as it can be
    np.testing.assert_allclose(info["final_observation"][[19, 39], 0], 1)
    assert (reward <= 0).all()


def test_the_judges_judge_by_the_best_moment(page):
    rewards = jnp.array([[0.0, 1.0, 9.0], [0.5, 0.5, 0.5]])
    mask = jnp.array([[True, True, False], [True, True, True]])
    states = jnp.zeros((2, 3), jnp.int32)
    segments = Segments(states, states, rewards, mask, states)

    @jax.jit
    def judged(segments):
        both = (page.careless, page.judge)
        scores = [judge.score(segments) for judge in both]
        chances = [j.preference(s[:1], s[1:]) for j, s in zip(both, scores, strict=True)]
        return page.Peak(5.0).score(segments), *chances

    scores, of_careless, of_sure = judged(segments)
    np.testing.assert_allclose(scores, [5.0, 2.5])
    honest = 1 / (1 + np.exp(-2 * 2.5))
    np.testing.assert_allclose(of_careless, 0.9 * honest + 0.1 * (1 - honest), rtol=1e-6)
    np.testing.assert_array_equal(of_sure, 1)


def test_the_offline_learner_learns(page):
    metrics = page.result.metrics
    assert metrics["loss"].shape == (8, 10)
    assert (metrics["loss"][:, -1] < metrics["loss"][:, 0]).all()
    # it fits the answers, of which most are ties, far better than chance
    assert metrics["accuracy"].mean() > 0.8
    assert metrics["greedy_return"].mean() > 0.5
    with pytest.raises(ValueError, match="margin must be positive"):
        page.make_square_train(page.config.replace(margin=0.0), page.problem, page.judge)


def test_the_online_learner_asks_within_its_bound(page):
    metrics = page.online.metrics
    regret = np.asarray(metrics["regret"])
    assert regret.shape == (8, 200) and (np.diff(regret, axis=1) > -1e-4).all()
    assert metrics["bound_held"].all() and (metrics["queries"] > 0).all()
    with pytest.raises(ValueError, match="sigma must be at least 0"):
        page.make_myopic_train(page.MyopicConfig(sigma=-1.0), page.tables, page.Logistic(8.0))
