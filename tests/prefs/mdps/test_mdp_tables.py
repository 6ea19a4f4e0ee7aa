"""What counts as a decision problem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.mdps import (
    check_tables,
    episodic_mdp,
    fixed_grid,
    one_hot_features,
    random_episodic,
    tabular_mdp,
)

GRID = fixed_grid()
EPISODIC = random_episodic(jax.random.key(0))


def test_sound_tables_pass():
    check_tables(GRID)
    check_tables(EPISODIC)


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("transition", lambda x: x.at[3, 2].mul(1.01), r"transition must sum to 1.*\[3, 2\]"),
        ("transition", lambda x: x.at[0, 0, :2].add(jnp.array([2.0, -2.0])), "not be negative"),
        ("transition", lambda x: x.at[1, 1, 1].set(jnp.nan), r"transition must be finite.*1, 1, 1"),
        ("transition", lambda x: x[:, :, :-1], r"transition must have shape \[S, A, S\]"),
        ("transition", lambda x: x[0], r"transition must have shape \[S, A, S\]"),
        ("transition", lambda x: x[:0, :, :0], r"transition must have shape \[S, A, S\]"),
        ("reward", lambda x: x.at[4, 0].set(jnp.inf), r"reward must be finite.*\[4, 0\]"),
        ("reward", lambda x: x[:, 0], r"reward must have shape \(25, 4\)"),
        ("initial", lambda x: x * 0.9, "initial must sum to 1, got 0.9"),
        ("initial", lambda x: x[:3], r"initial must have shape \(25,\)"),
        ("discount", lambda x: x * 0 + 1, r"discount must be in \[0, 1\), got 1"),
        ("discount", lambda x: -x, r"discount must be in \[0, 1\)"),
        ("discount", lambda x: x * jnp.nan, "discount must be finite"),
        ("discount", lambda x: x[None], r"discount must have shape \(\)"),
    ],
)
def test_unsound_discounted_tables_are_refused(field, change, message):
    mdp = GRID
    with pytest.raises(ValueError, match=message):
        check_tables(mdp.replace(**{field: change(getattr(mdp, field))}))


@pytest.mark.parametrize(
    ("field", "change", "message"),
    [
        ("transition", lambda x: x[0], r"transition must have shape \[H, S, A, S\]"),
        ("transition", lambda x: x.at[2, 1, 0].mul(0.9), r"transition must sum to 1.*\[2, 1, 0\]"),
        ("reward", lambda x: x[:2], r"reward must have shape \(3, 4, 3\)"),
        ("features", lambda x: x[..., 0], r"features must have shape"),
        ("features", lambda x: x[0, 0, 0, 0], r"features must have shape"),
        ("features", lambda x: x.at[0, 0, 0, 0].set(jnp.nan), "features must be finite"),
    ],
)
def test_unsound_episodic_tables_are_refused(field, change, message):
    mdp = EPISODIC
    with pytest.raises(ValueError, match=message):
        check_tables(mdp.replace(**{field: change(getattr(mdp, field))}))


def test_what_is_made_of_unsound_tables_is_refused():
    grid, episodic = jax.tree.map(np.asarray, (GRID, EPISODIC))
    with pytest.raises(ValueError, match="transition must sum to 1"):
        tabular_mdp(1.1 * grid.transition, grid.reward, grid.initial, 0.9)
    with pytest.raises(ValueError, match="discount must be in"):
        tabular_mdp(grid.transition, grid.reward, grid.initial, 1.5)
    with pytest.raises(ValueError, match="transition must sum to 1"):
        episodic_mdp(0.9 * episodic.transition, episodic.reward, episodic.initial)
    with pytest.raises(ValueError, match="transition must have shape"):
        episodic_mdp(grid.transition, grid.reward, grid.initial)


def test_something_else_is_refused():
    with pytest.raises(ValueError, match="expected a TabularMDP or an EpisodicMDP, got dict"):
        check_tables({})  # pyright: ignore[reportArgumentType]


def test_features_are_one_hot_where_none_are_given():
    rng = np.random.default_rng(0)
    transition = rng.dirichlet(np.ones(3), size=(2, 3, 4))
    mdp = episodic_mdp(transition, np.zeros((2, 3, 4)), np.eye(3)[0])
    features = np.asarray(mdp.features)
    assert features.shape == (2, 3, 4, 12)
    assert (features.sum(-1) == 1).all()
    assert (np.argmax(features, -1) == np.arange(12).reshape(3, 4)).all()
    assert (one_hot_features(3, 4) == features[1]).all()
    assert (mdp.horizon, mdp.num_states, mdp.num_actions) == (2, 3, 4)


def test_tables_follow_the_default_float():
    tables = (np.eye(2)[:, None], np.zeros((2, 1)), np.eye(2)[0], 0.9)
    assert tabular_mdp(*tables).reward.dtype == jnp.float32
    with jax.enable_x64(True):
        assert {x.dtype for x in jax.tree.leaves(tabular_mdp(*tables))} == {jnp.dtype("float64")}
        assert {x.dtype for x in jax.tree.leaves(fixed_grid())} == {jnp.dtype("float64")}
