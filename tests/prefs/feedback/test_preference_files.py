"""What is saved is loaded; what is damaged, foreign or unsound is refused by name."""

import json

import h5py
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import prefs.feedback.files as files
from prefs.feedback import (
    PreferenceData,
    PreferenceFileError,
    Segments,
    load,
    provenance,
    save,
    unlabelled,
)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    mask = np.arange(3) < np.array([3, 1, 2, 3])[:, None]
    segments = Segments(
        observations=jnp.asarray(rng.normal(size=(4, 3, 2)), jnp.float32),
        actions=jnp.asarray(rng.integers(0, 3, (4, 3)), jnp.int32),
        rewards=jnp.asarray(rng.normal(size=(4, 3)), jnp.float32),
        mask=jnp.asarray(mask),
        next_observations=jnp.asarray(rng.normal(size=(4, 3, 2)), jnp.float32),
    )
    pairs = unlabelled([0, 1, 2], [3, 2, 0])
    label, counts = jnp.array([0.25, 1.0, 0.5]), jnp.array([True, False, True])
    return PreferenceData(segments, pairs.replace(label=label, mask=counts))


@pytest.fixture
def path(tmp_path, data):
    path = tmp_path / "data.h5"
    save(path, data, provenance(seed=3, labeller="regret", problem="GridWorld-v0"))
    return path


def _same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert jax.tree.map(lambda leaf: leaf.dtype, one) == jax.tree.map(lambda x: x.dtype, other)


def test_saved_data_come_back(path, data):
    loaded, about = load(path)
    _same(loaded, data)
    assert (about["seed"], about["labeller"], about["problem"]) == (3, "regret", "GridWorld-v0")
    assert about["versions"]["h5py"] == h5py.__version__ and "jax" in about["versions"]
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_a_failed_save_leaves_the_old_file(path, data, monkeypatch):
    before = path.read_bytes()
    written = []

    def fails_late(file, name, values):
        written.append(name)
        if len(written) == 6:
            raise OSError("disk full")
        return real(file, name, values)

    real = files.write_array
    monkeypatch.setattr(files, "write_array", fails_late)
    with pytest.raises(OSError, match="disk full"):
        save(path, data, {})
    assert len(written) == 6 and path.read_bytes() == before
    assert [item.name for item in path.parent.iterdir()] == [path.name]


def test_unsound_data_are_not_saved(tmp_path, data):
    bad = data.replace(pairs=data.pairs.replace(label=jnp.array([0.0, 2.0, 1.0])))
    with pytest.raises(ValueError, match=r"pairs.label\[1\] must be a probability"):
        save(tmp_path / "bad.h5", bad, {})
    with pytest.raises(ValueError, match="provenance must be JSON"):
        save(tmp_path / "bad.h5", data, {"model": object()})
    with pytest.raises(ValueError, match="provenance must be JSON"):
        save(tmp_path / "bad.h5", data, {"score": float("nan")})
    assert not list(tmp_path.iterdir())


def test_truncation_is_noticed_anywhere(path):
    whole = path.read_bytes()
    for length in (0, 3, 100, len(whole) // 3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(PreferenceFileError, match=f"{path.name}: not HDF5, truncated or corr"):
            load(path)


def test_a_flipped_bit_in_an_array_is_noticed(path):
    whole = path.read_bytes()
    with h5py.File(path) as file:
        names = [f"segments/{n}" for n in Segments.__dataclass_fields__] + ["pairs/label"]
        chunks = [file[name].id.get_chunk_info(0) for name in names]
    for chunk in chunks:
        for at in (chunk.byte_offset, chunk.byte_offset + chunk.size // 2):
            damaged = bytearray(whole)
            damaged[at] ^= 0x10
            path.write_bytes(damaged)
            with pytest.raises(PreferenceFileError, match="truncated or corrupted"):
                load(path)


def _replaced(name, values):
    def spoil(file):
        del file[name]
        file[name] = values

    return spoil


def _linked(link):
    def spoil(file):
        del file["pairs/label"]
        file["pairs/label"] = link

    return spoil


def _removed(name):
    def spoil(file):
        del file[name]

    return spoil


def _declared(file):
    del file["segments/rewards"]
    file.create_dataset("segments/rewards", (4, 3), "f4", chunks=(4, 3))


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (_removed("pairs/label"), "/pairs/label is missing"),
        (_removed("segments"), "/segments/observations is missing"),
        (_replaced("pairs/label", [2.0, 0.0, 0.0]), r"pairs.label\[0\] must be a probability"),
        (_replaced("pairs/first", [0, 1, 7]), r"pairs.first\[2\] is 7"),
        (_replaced("pairs/first", [0, 1, 2**40]), "first holds integers that int32 cannot"),
        (_replaced("pairs/second", [3, 2]), r"one \[M\]"),
        (_replaced("segments/rewards", np.full((4, 3), np.nan)), "rewards of segment 0"),
        (_replaced("segments/rewards", ["a", "b"]), "rewards must hold numbers, got type object"),
        (_replaced("segments/rewards", np.bytes_("pickle")), "must hold numbers, got type"),
        (_replaced("pairs/mask", h5py.Empty("f")), "mask must be an array kept in the file"),
        (_linked(h5py.ExternalLink("/etc/passwd", "/")), "/pairs/label is missing"),
        (_linked(h5py.SoftLink("/segments/rewards")), "/pairs/label is missing"),
        (_declared, "rewards was declared but never written"),
        (lambda file: file.attrs.update(format="other"), "not a preference data set"),
        (lambda file: file.attrs.update(version=9), "version 9 is not one this package reads"),
        (lambda file: file.attrs.update(version="1"), "version 1 is not one"),
        (lambda file: file.attrs.update(provenance="{"), "'provenance' is not a JSON object"),
        (lambda file: file.attrs.update(provenance="[1]"), "'provenance' is not a JSON object"),
        (lambda file: file.attrs.__delitem__("provenance"), "'provenance' is not a JSON object"),
    ],
)
def test_malformed_files_are_refused_by_name(path, spoil, says):
    with h5py.File(path, "r+") as file:
        spoil(file)
    with pytest.raises(PreferenceFileError, match=says) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)


def test_other_files_are_refused(tmp_path):
    with pytest.raises(PreferenceFileError, match="absent.h5: no such file"):
        load(tmp_path / "absent.h5")
    with pytest.raises(PreferenceFileError, match="no such file"):
        load(tmp_path)
    text = tmp_path / "notes.txt"
    text.write_text(json.dumps({"format": "preference-data"}))
    with pytest.raises(PreferenceFileError, match="notes.txt: not HDF5"):
        load(text)
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    with pytest.raises(PreferenceFileError, match="not a preference data set"):
        load(tmp_path / "empty.h5")


def test_a_missing_folder_is_an_os_error(tmp_path, data):
    with pytest.raises(FileNotFoundError):
        save(tmp_path / "absent" / "data.h5", data, {})
