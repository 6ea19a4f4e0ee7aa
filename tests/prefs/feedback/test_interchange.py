"""Episodes in Minari's layout: what is written is read back, what does not fit is refused."""

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prefs.feedback import (
    PreferenceData,
    PreferenceFileError,
    check_segments,
    export_episodes,
    import_preferences,
    import_segments,
    unlabelled,
)

LENGTHS = (4, 1, 3)


def _write_foreign(path, lengths=LENGTHS):
    """A file as another tool would write it: plain arrays, in no particular order."""
    rng = np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in reversed(range(len(lengths))):
            episode = file.create_group(f"episode_{number}")
            steps = lengths[number]
            episode["observations"] = rng.normal(size=(steps + 1, 2))
            episode["actions"] = rng.integers(0, 3, steps)
            episode["rewards"] = rng.normal(size=steps)
            episode["terminations"] = np.arange(steps) == steps - 1
            episode["infos"] = np.zeros(steps)


@pytest.fixture
def foreign(tmp_path):
    path = tmp_path / "main_data.hdf5"
    _write_foreign(path)
    return path


def test_ragged_episodes_are_padded_and_masked(foreign):
    segments = import_segments(foreign)
    check_segments(segments)
    assert segments.observations.shape == (3, 4, 2) and segments.actions.dtype == jnp.int32
    np.testing.assert_array_equal(segments.mask.sum(1), LENGTHS)
    with h5py.File(foreign) as file:
        for number, steps in enumerate(LENGTHS):
            episode = file[f"episode_{number}"]
            mine = jax.tree.map(lambda leaf, n=number, t=steps: np.asarray(leaf[n, :t]), segments)
            np.testing.assert_allclose(mine.observations, episode["observations"][:-1], rtol=1e-6)
            np.testing.assert_allclose(
                mine.next_observations, episode["observations"][1:], rtol=1e-6
            )
            np.testing.assert_array_equal(mine.actions, episode["actions"])
            np.testing.assert_allclose(mine.rewards, episode["rewards"], rtol=1e-6)


def test_episodes_are_cut_into_windows(foreign):
    segments = import_segments(foreign, length=2)
    whole = import_segments(foreign)
    np.testing.assert_array_equal(segments.mask.sum(1), [2, 2, 1, 2, 1])
    np.testing.assert_array_equal(segments.rewards[1], whole.rewards[0, 2:4])
    np.testing.assert_array_equal(segments.observations[4, 0], whole.observations[2, 2])
    assert import_segments(foreign, length=100).mask.shape == (3, 4)
    with pytest.raises(ValueError, match="length must be at least 1 step, got 0"):
        import_segments(foreign, length=0)


@pytest.fixture
def data(foreign):
    segments = import_segments(foreign)
    pairs = unlabelled([0, 1], [1, 2])
    return PreferenceData(segments, pairs.replace(label=jnp.array([1.0, 0.25])))


def test_exported_data_come_back(data, tmp_path):
    path = tmp_path / "out.hdf5"
    export_episodes(path, data, {"seed": 1})
    back = import_preferences(path)
    jax.tree.map(np.testing.assert_array_equal, back, data)
    jax.tree.map(np.testing.assert_array_equal, import_segments(path), data.segments)
    with h5py.File(path) as file:
        assert file.attrs["total_episodes"] == 3 and file.attrs["total_steps"] == sum(LENGTHS)
        for number, steps in enumerate(LENGTHS):
            episode = file[f"episode_{number}"]
            assert episode.attrs["id"] == number and episode.attrs["total_steps"] == steps
            assert episode["observations"].shape == (steps + 1, 2)
            np.testing.assert_array_equal(episode["truncations"], np.arange(steps) == steps - 1)


def test_comparisons_of_pieces_of_episodes(foreign):
    whole = import_segments(foreign)
    with h5py.File(foreign, "r+") as file:
        file["preferences/segments"] = [[0, 1, 3], [2, 0, 2]]
        file["preferences/first"] = [0]
        file["preferences/second"] = [1]
        file["preferences/label"] = [1]
    data = import_preferences(foreign)
    np.testing.assert_array_equal(data.segments.mask.sum(1), [3, 2])
    np.testing.assert_array_equal(data.segments.rewards[0], whole.rewards[0, 1:4])
    np.testing.assert_array_equal(data.segments.rewards[1, :2], whole.rewards[2, :2])
    assert data.pairs.label.dtype == jnp.float32 and data.pairs.mask.all()


def test_a_segment_must_hang_together(data, tmp_path):
    after = data.segments.next_observations.at[0, 1].add(1.0)
    torn = data.replace(segments=data.segments.replace(next_observations=after))
    with pytest.raises(ValueError, match="segment 0 is not continuous: what follows step 1"):
        export_episodes(tmp_path / "out.hdf5", torn)
    padded = data.segments.next_observations.at[1, 2].add(1.0)  # padding may hold anything
    data = data.replace(segments=data.segments.replace(next_observations=padded))
    export_episodes(tmp_path / "out.hdf5", data)


def _set(name, values):
    def spoil(file):
        if name in file:
            del file[name]
        file[name] = values

    return spoil


def _drop(*names):
    def spoil(file):
        for name in names:
            del file[name]

    return spoil


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop("episode_0", "episode_1", "episode_2"), "no episode"),
        (_drop("episode_1/actions"), "/episode_1/actions is missing"),
        (
            _set("episode_1/observations", np.zeros((1, 2))),
            r"episode_1/observations must begin with 2 for 1 steps, got shape \(1, 2\)",
        ),
        (_set("episode_2/actions", np.zeros(2)), "episode_2/actions must begin with 3 for 3"),
        (_set("episode_2/observations", np.zeros((4, 5))), r"steps of shape \(5,\), those before"),
        (_set("episode_0/rewards", np.zeros((4, 1))), r"rewards must be \[T\]"),
        (_set("episode_0/rewards", np.zeros(0)), r"rewards must be \[T\] of at least one step"),
        (
            lambda file: (
                (_drop("episode_0/observations")(file))
                or file.create_group("episode_0/observations/camera")
            ),
            "episode_0/observations must be an array, not a group",
        ),
    ],
)
def test_malformed_episodes_are_refused_by_name(foreign, spoil, says):
    with h5py.File(foreign, "r+") as file:
        spoil(file)
    with pytest.raises(PreferenceFileError, match=says) as caught:
        import_segments(foreign)
    assert str(caught.value).startswith(f"{foreign}: ")


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_drop("preferences"), "/preferences/segments is missing"),
        (_set("preferences/segments", np.zeros((3, 2), int)), r"integers \[N, 3\]"),
        (_set("preferences/segments", [[0, 2, 3]] * 3), "steps 2 to 5 of episode 0, .* has 4"),
        (_set("preferences/segments", [[0, -1, 2]] * 3), "steps -1 to 1 of episode 0"),
        (_set("preferences/segments", [[7, 0, 1]] * 3), "episode 7, which does not exist"),
        (_set("preferences/first", [0.0, 1.0]), "pairs.first must be integers"),
        (_set("preferences/first", [0, 3]), r"pairs.first\[1\] is 3"),
        (_set("preferences/label", [0.0, 1.5]), r"pairs.label\[1\] must be a probability"),
        (_set("preferences/label", [0.0]), r"one \[M\]"),
    ],
)
def test_malformed_comparisons_are_refused_by_name(data, tmp_path, spoil, says):
    path = tmp_path / "out.hdf5"
    export_episodes(path, data)
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(PreferenceFileError, match=says) as caught:
        import_preferences(path)
    assert str(caught.value).startswith(f"{path}: ")
