"""Result files: complete, atomic, valid JSON."""

import json
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from experiments.record import provenance, to_json, write_json


class Pair(NamedTuple):
    left: float
    right: np.ndarray


def test_arrays_and_tuples_become_plain_json():
    content = {"pair": Pair(1.5, np.arange(2)), "jax": jnp.ones(2), 3: (np.float32(0.5), None)}
    assert json.loads(json.dumps(to_json(content), allow_nan=False)) == {
        "pair": {"left": 1.5, "right": [0, 1]},
        "jax": [1.0, 1.0],
        "3": [0.5, None],
    }


def test_numbers_that_are_not_finite_become_null():
    assert to_json({"a": np.array([1.0, np.nan]), "b": float("inf")}) == {
        "a": [1.0, None],
        "b": None,
    }


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "new" / "results.json"
    write_json(path, {"run": 1})
    with pytest.raises(TypeError):
        write_json(path, {"run": object()})
    assert json.loads(path.read_text()) == {"run": 1}
    assert [item.name for item in path.parent.iterdir()] == ["results.json"]


def test_provenance_names_command_versions_and_hardware():
    found = to_json(provenance(["evaluate", "--out", "a b"]))
    assert found["command"] == "python -m experiments evaluate --out 'a b'"
    assert {"python", "jax", "jaxrl5g"} <= found["versions"].keys()
    assert found["hardware"]["cores"] >= 1
    json.dumps(found, allow_nan=False)
