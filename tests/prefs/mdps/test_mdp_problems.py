"""The tabular problems are what their descriptions say."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.mdps import (
    backward_induction,
    check_tables,
    fixed_grid,
    garnet,
    grid_world,
    hard_optimal,
    linear_factors,
    linear_mdp,
    random_episodic,
    river_swim,
    river_swim_episodic,
)

GARNET = partial(garnet, num_states=20, num_actions=4, branching=3)
LINEAR_SIZES = {"num_states": 8, "num_actions": 3, "horizon": 2, "rank": 3}


@jax.jit
def linear(key):
    return linear_mdp(key, **LINEAR_SIZES), linear_factors(key, **LINEAR_SIZES)


@pytest.mark.parametrize("seed", range(3))
def test_grid_world_against_a_walk_by_hand(seed):
    mdp = jax.tree.map(np.asarray, grid_world(jax.random.key(seed)))
    check_tables(mdp)
    counts = {-0.05: 44, -0.5: 4, 1.0: 1}
    assert (mdp.reward == mdp.reward[:, :1]).all()
    for reward, count in counts.items():
        assert np.isclose(mdp.reward[:, 0], reward).sum() == count
    moves = {0: (-1, 0), 1: (1, 0), 2: (0, -1), 3: (0, 1)}
    for state in range(49):
        for chosen in range(4):
            expected = np.zeros(49)
            for made, (down, right) in moves.items():
                row, column = state // 7 + down, state % 7 + right
                stays = not (0 <= row < 7 and 0 <= column < 7)
                expected[state if stays else row * 7 + column] += 0.9 if made == chosen else 0.1 / 3
            np.testing.assert_allclose(mdp.transition[state, chosen], expected, atol=1e-6)
    np.testing.assert_allclose(mdp.initial, 1 / 49, rtol=1e-6)


def test_grid_worlds_differ_by_key_and_stack():
    stack = jax.vmap(grid_world)(jax.random.split(jax.random.key(0), 20))
    goals = np.argmax(np.asarray(stack.reward)[:, :, 0], -1)
    assert len(set(goals.tolist())) > 5
    alone = grid_world(jax.random.split(jax.random.key(0), 20)[7])
    for one, many in zip(jax.tree.leaves(alone), jax.tree.leaves(stack), strict=True):
        np.testing.assert_allclose(many[7], one, rtol=1e-6)


def test_fixed_grid_leads_to_its_last_cell_around_the_hazard():
    mdp = fixed_grid()
    check_tables(mdp)
    cells = np.asarray(mdp.reward)[:, 0]
    assert np.argmax(cells) == 24 and np.argmin(cells) == 12
    v = np.asarray(hard_optimal(mdp).v).reshape(5, 5)
    np.testing.assert_allclose(v, v.T, rtol=1e-5)  # the grid is symmetric about its diagonal
    assert np.argmax(v) == 24 and v[2, 2] == min(v[2, 1], v[2, 2], v[2, 3], v[3, 2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 1}, "size must be at least 2 cells, got 1"),
        ({"size": 2, "num_hazards": 4}, r"num_hazards must be in 0\.\.3, got 4"),
        ({"num_hazards": -1}, "num_hazards must be in"),
    ],
)
def test_grids_that_cannot_be(options, message):
    with pytest.raises(ValueError, match=message):
        grid_world(jax.random.key(0), **options)


@pytest.mark.parametrize("seed", range(3))
def test_garnet_has_its_branching(seed):
    mdp = GARNET(jax.random.key(seed))
    check_tables(mdp)
    assert (np.count_nonzero(np.asarray(mdp.transition), axis=-1) == 3).all()
    assert (np.asarray(mdp.reward) >= 0).all() and (np.asarray(mdp.reward) <= 1).all()


def test_garnet_probabilities_are_uniform_cuts():
    """Mean 1/b and variance (b - 1) / (b^2 (b + 1)) of Dirichlet(1), over 50 problems."""
    keys = jax.random.split(jax.random.key(0), 50)
    p = np.asarray(jax.jit(jax.vmap(GARNET))(keys).transition)
    parts = p[p > 0]
    assert parts.size == 50 * 80 * 3
    assert abs(parts.var() - 2 / 36) < 0.003
    visits = (p > 0).mean((0, 1, 2))
    np.testing.assert_allclose(visits, 3 / 20, atol=0.03)


def test_garnets_that_cannot_be():
    with pytest.raises(ValueError, match=r"branching must be in 1\.\.4, got 5"):
        garnet(jax.random.key(0), 4, 2, 5)
    with pytest.raises(ValueError, match="num_actions must be at least 1, got 0"):
        garnet(jax.random.key(0), 4, 0, 2)


def test_river_swim_by_hand():
    mdp = river_swim(4)
    check_tables(mdp)
    left = [[1, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]
    right = [[0.4, 0.6, 0, 0], [0.05, 0.6, 0.35, 0], [0, 0.05, 0.6, 0.35], [0, 0, 0.4, 0.6]]
    np.testing.assert_allclose(mdp.transition[:, 0], left)
    np.testing.assert_allclose(mdp.transition[:, 1], right, rtol=1e-6)
    np.testing.assert_allclose(mdp.reward, [[0.005, 0], [0, 0], [0, 0], [0, 1]])
    np.testing.assert_allclose(mdp.initial, [1, 0, 0, 0])
    patient = jnp.argmax(hard_optimal(river_swim(4, 0.99)).policy, -1)
    hasty = jnp.argmax(hard_optimal(river_swim(4, 0.05)).policy, -1)
    assert (patient == 1).all() and hasty[0] == 0


def test_river_swim_for_a_while():
    mdp = river_swim_episodic(4, horizon=8)
    check_tables(mdp)
    assert mdp.transition.shape == (8, 4, 2, 4)
    np.testing.assert_allclose(mdp.transition[5], river_swim(4).transition)
    np.testing.assert_allclose(mdp.reward[5] * 8, river_swim(4).reward, rtol=1e-6)
    assert float(backward_induction(mdp)[1].max()) <= 1


def test_rivers_that_cannot_be():
    with pytest.raises(ValueError, match="num_states must be at least 2, got 1"):
        river_swim(1)
    with pytest.raises(ValueError, match="horizon must be at least 1 step, got 0"):
        river_swim_episodic(4, 0)


@pytest.mark.parametrize("seed", range(3))
def test_linear_mdp_has_its_rank(seed):
    with jax.enable_x64(True):
        mdp, _ = linear(jax.random.key(seed))
        check_tables(mdp)
        for table in np.asarray(mdp.transition):
            singular = np.linalg.svd(table.reshape(-1, 8), compute_uv=False)
            assert singular[2] > 1e-6 and singular[3] < 1e-14
        np.testing.assert_allclose(np.asarray(mdp.transition).sum(-1), 1, rtol=1e-14)


def test_linear_mdp_is_linear_in_its_features():
    with jax.enable_x64(True):
        mdp, factors = linear(jax.random.key(0))
        phi, mu, theta = map(np.asarray, factors)
    np.testing.assert_array_equal(mdp.features, phi)
    np.testing.assert_allclose(mdp.transition, np.einsum("hsad,hdt->hsat", phi, mu), rtol=1e-12)
    np.testing.assert_allclose(mdp.reward, np.einsum("hsad,hd->hsa", phi, theta), rtol=1e-12)
    for rows in (phi, mu):
        assert (rows >= 0).all()
        np.testing.assert_allclose(rows.sum(-1), 1, rtol=1e-12)
    assert (np.linalg.norm(phi, axis=-1) <= 1 + 1e-12).all()
    assert (theta >= 0).all() and (theta <= 0.5).all()
    # rewards are explained by features at every step, so a regression has no residual
    for h in range(2):
        design, reward = phi[h].reshape(-1, 3), np.asarray(mdp.reward)[h].ravel()
        fit = np.linalg.lstsq(design, reward, rcond=None)[0]
        np.testing.assert_allclose(design @ fit, reward, atol=1e-14)


def test_random_episodic_problems():
    """Rewards are there with probability 0.4 and uniform; rows are Dirichlet(1/2)."""
    keys = jax.random.split(jax.random.key(0), 200)
    stack = jax.tree.map(np.asarray, jax.jit(jax.vmap(random_episodic))(keys))
    check_tables(jax.tree.map(lambda x: x[3], stack))
    assert stack.transition.shape == (200, 3, 4, 3, 4)
    paid = stack.reward > 0
    assert abs(paid.mean() - 0.4) < 0.02
    assert stack.reward.max() <= 1 / 3
    assert abs(stack.reward[paid].mean() - 1 / 6) < 0.005
    # Dirichlet(1/2) of 4 parts: variance (1/4)(3/4) / (4/2 + 1)
    assert abs(stack.transition.var() - 0.0625) < 0.003
    assert (stack.initial == np.eye(4)[0]).all()
    assert (stack.features[0, 0].reshape(12, 12) == np.eye(12)).all()


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((8, 3, 2, 9), "rank must be at most num_states = 8, got 9"),
        ((8, 3, 2, 0), "rank must be at least 1, got 0"),
        ((8, 3, 0, 2), "horizon must be at least 1, got 0"),
    ],
)
def test_linear_mdps_that_cannot_be(sizes, message):
    with pytest.raises(ValueError, match=message):
        linear_mdp(jax.random.key(0), *sizes)


def test_random_episodic_problems_that_cannot_be():
    with pytest.raises(ValueError, match="num_states must be at least 1, got 0"):
        random_episodic(jax.random.key(0), 0)
