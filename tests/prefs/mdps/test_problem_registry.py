"""Named problems, and what is said of a wrong name."""

import numpy as np
import pytest

from prefs.mdps import make, registered, spec, tables


def test_ids_have_versions_and_descriptions():
    wanted = {
        "GridWorld-v0",
        "Garnet-v0",
        "RiverSwim-v0",
        "LinearMDP-v0",
        "RandomEpisodic-v0",
        "PointMaze-v0",
    }
    assert wanted <= set(registered())
    assert all(spec(name).description for name in registered())


def test_options_and_seeds_reach_the_problem():
    assert tables(make("GridWorld-v0", size=4, discount=0.5)).num_states == 16
    assert float(tables(make("GridWorld-v0", discount=0.5)).discount) == 0.5
    rewards = [np.asarray(tables(make("Garnet-v0", seed=seed)).reward) for seed in (None, 0, 1)]
    assert (rewards[0] == rewards[1]).all() and (rewards[1] != rewards[2]).any()
    assert make("RiverSwim-v0", max_steps_in_episode=7).params.max_steps_in_episode == 7
    assert make("PointMaze-v0", speed=0.25).params.speed == 0.25


def test_a_linear_problem_is_of_lower_rank_than_its_tables():
    mdp = tables(make("LinearMDP-v0"))
    assert mdp.features.shape[-1] < mdp.num_states < mdp.num_states * mdp.num_actions


@pytest.mark.parametrize(
    ("problem_id", "options", "message"),
    [
        ("GridWord-v0", {}, "unknown problem id 'GridWord-v0'; did you mean 'GridWorld-v0'?"),
        ("zzz", {}, "unknown problem id 'zzz'; known are GridWorld-v0, "),
        ("GridWorld-v0", {"num_hazard": 1}, "option 'num_hazard'; did you mean 'num_hazards'?"),
        ("PointMaze-v0", {"sped": 1}, "did you mean 'speed'?"),
        ("RiverSwim-v0", {"seed": 1}, "RiverSwim-v0 has nothing random and takes no seed."),
        ("GridWorld-v0", {"slip": 1.5}, "transition must not be negative"),
        ("GridWorld-v0", {"discount": 1.0}, "discount must be in [0, 1), got 1.0."),
        ("GridWorld-v0", {"goal_reward": np.nan}, "reward must be finite"),
    ],
)
def test_wrong_requests(problem_id, options, message):
    with pytest.raises(ValueError) as caught:
        make(problem_id, **options)
    assert message in str(caught.value)
