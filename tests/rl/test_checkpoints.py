"""A checkpoint gives back every bit of a state, or says in one sentence why it does not."""

import json
import os
import shutil
import subprocess
import sys
import textwrap
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrl5g
from jaxrl5g.rl.checkpoints import (
    CheckpointFolder,
    load_checkpoint,
    plain_config,
    read_checkpoint,
    read_metadata,
    write_checkpoint,
)
from jaxrl5g.rl.faults import CheckpointError
from jaxrl5g.rl.leaves import settled

ROOT = Path(__file__).parents[2]
CONFIG = {"learning_rate": 3e-4, "seed": 1, "network": {"width": 8, "layers": [8, 8]}, "name": "a"}


@flax.struct.dataclass
class Environment:
    slot: jax.Array
    backlog: jax.Array
    label: str = flax.struct.field(pytree_node=False, default="env")


class Learner(NamedTuple):
    parameters: Any
    optimiser: Any
    key: jax.Array
    environments: Environment
    extras: Any


def a_learner(fill: float = 0.5) -> Learner:
    """One of every kind of leaf and node that a learner may carry."""
    parameters = {"dense/0": {"kernel": jnp.full((2, 3), fill), "b.ias": jnp.arange(3.0)}}
    return Learner(
        parameters=parameters,
        optimiser=optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3)).init(parameters),
        key=jax.random.split(jax.random.key(int(8 * fill)), 2),
        environments=Environment(
            slot=jnp.asarray([3, -1], jnp.int32), backlog=jnp.asarray([[True], [False]])
        ),
        extras=[
            jax.random.key(3, impl="rbg"),
            jax.random.split(jax.random.key(0), (0, 3)),
            jnp.zeros((0, 4), jnp.float16),
            jnp.asarray([fill, -0.0, 1e-30], jnp.bfloat16),
            np.asarray([2**40, -1]),
            np.asarray(np.pi),
            (jnp.uint32(4_000_000_000), jnp.int8(-3), None),
            {"steps": 2**40, "scale": 0.1 * fill, "warm": True},
        ],
    )


def bits(leaf) -> tuple:
    if hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    if isinstance(leaf, jax.Array | np.ndarray):
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()
    return type(leaf), leaf


def assert_same(left, right):
    assert jax.tree.structure(left) == jax.tree.structure(right)
    assert [bits(leaf) for leaf in jax.tree.leaves(left)] == [
        bits(leaf) for leaf in jax.tree.leaves(right)
    ]


def test_every_kind_of_leaf_comes_back_bit_for_bit(tmp_path):
    state = a_learner()
    write_checkpoint(tmp_path / "one", state, {"config": CONFIG, "phase": "joint"})
    # what it is loaded into holds other numbers of the same kinds
    loaded, metadata = load_checkpoint(tmp_path / "one", a_learner(2.0), config=CONFIG)

    assert_same(loaded, state)
    assert [type(leaf) for leaf in jax.tree.leaves(loaded)] == [
        type(leaf) for leaf in jax.tree.leaves(state)
    ]
    np.testing.assert_array_equal(
        jax.random.uniform(loaded.key[1], (4,)), jax.random.uniform(state.key[1], (4,))
    )
    assert metadata["phase"] == "joint" and metadata["config"] == CONFIG
    assert metadata["jaxrl5g"] == jaxrl5g.__version__


def test_shapes_alone_are_enough_to_load_into(tmp_path):
    state = settled(a_learner()._replace(extras=(1, 2.5, jnp.ones((0, 2)))))
    write_checkpoint(tmp_path / "one", state, {})
    shapes = jax.eval_shape(lambda: state)
    assert_same(load_checkpoint(tmp_path / "one", shapes)[0], state)


def test_leaves_are_matched_by_name_and_not_by_order(tmp_path):
    write_checkpoint(tmp_path / "one", OrderedDict(b=jnp.ones(2), a=jnp.zeros(2)), {})
    loaded, _ = load_checkpoint(tmp_path / "one", {"a": jnp.ones(2), "b": jnp.zeros(2)})
    assert_same(loaded, {"a": jnp.zeros(2), "b": jnp.ones(2)})


@settings(max_examples=12, deadline=None)
@given(
    st.dictionaries(
        st.text("a./ '[0é", min_size=1, max_size=3),
        st.tuples(
            st.sampled_from(["float32", "int32", "bool", "uint8", "bfloat16"]),
            st.lists(st.integers(0, 3), max_size=3),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 2**32 - 1),
)
def test_any_names_types_and_shapes(tmp_path_factory, leaves, seed):
    draw = np.random.default_rng(seed)
    state = {
        name: jnp.asarray(draw.integers(0, 100, shape), dtype)
        for name, (dtype, shape) in leaves.items()
    } | {"step": seed}
    path = tmp_path_factory.mktemp("any") / "one"
    write_checkpoint(path, state, {})
    assert_same(load_checkpoint(path, state)[0], state)
    nested = read_checkpoint(path)[1]
    assert nested.keys() == state.keys()
    assert all(np.array_equal(nested[name], state[name]) for name in state)


def test_a_loaded_array_can_be_donated(tmp_path):
    write_checkpoint(tmp_path / "one", {"a": jnp.arange(1024.0)}, {})
    loaded, _ = load_checkpoint(tmp_path / "one", {"a": jnp.zeros(1024)})
    doubled = jax.jit(lambda a: 2 * a, donate_argnums=0)(loaded["a"])  # warns where it cannot
    assert loaded["a"].is_deleted()
    np.testing.assert_array_equal(doubled, 2 * np.arange(1024.0))


@pytest.mark.parametrize(
    "changed, sentence",
    [
        (
            lambda s: s._replace(parameters={"dense/0": {"kernel": jnp.zeros((2, 4))}}),
            r"kernel'\]: float32\[2, 3\] in the checkpoint, float32\[2, 4\] now",
        ),
        (
            lambda s: s._replace(environments=s.environments.replace(slot=jnp.zeros(2))),
            r"\.slot: int32\[2\] in the checkpoint, float32\[2\] now",
        ),
        (lambda s: s._replace(optimiser=()), r"count: int32\[\] in the checkpoint, absent now"),
        (
            lambda s: s._replace(key=jax.random.split(jax.random.key(0, impl="rbg"), 2)),
            r"\.key: key<fry>\[2\] in the checkpoint, key<rbg>\[2\] now",
        ),
        (lambda s: s._replace(extras=tuple(s.extras) + (1,)), "absent in the checkpoint, Python"),
    ],
)
def test_another_state_is_refused_by_name(tmp_path, changed, sentence):
    state = a_learner()
    write_checkpoint(tmp_path / "one", state, {})
    with pytest.raises(CheckpointError, match=sentence):
        load_checkpoint(tmp_path / "one", changed(state))


def test_another_configuration_is_refused_by_name(tmp_path):
    state = {"a": jnp.ones(2)}
    write_checkpoint(tmp_path / "one", state, {"config": CONFIG})
    other = CONFIG | {"learning_rate": 1e-3, "network": {"width": 8, "layers": (8, 16)}}
    with pytest.raises(CheckpointError) as refused:
        load_checkpoint(tmp_path / "one", state, config=other)
    assert "learning_rate: 0.0003 in the checkpoint, 0.001 now" in str(refused.value)
    assert "network.layers: [8, 8] in the checkpoint, [8, 16] now" in str(refused.value)
    assert "seed" not in str(refused.value) and "width" not in str(refused.value)

    load_checkpoint(tmp_path / "one", state, config=other, ignore=("learning_rate", "network"))
    with pytest.raises(CheckpointError, match="network.layers"):
        load_checkpoint(tmp_path / "one", state, config=other, ignore=("learning_rate", "net"))
    with pytest.raises(CheckpointError, match='momentum: absent in the checkpoint, "none" now'):
        load_checkpoint(tmp_path / "one", state, config=CONFIG | {"momentum": "none"})


def test_more_differences_than_fit_are_counted(tmp_path):
    state = {"a": jnp.ones(2)}
    write_checkpoint(tmp_path / "one", state, {"config": {str(i): i for i in range(9)}})
    with pytest.raises(CheckpointError, match="and 6 more"):
        load_checkpoint(tmp_path / "one", state, config={str(i): -1 - i for i in range(9)})


def test_another_version_is_refused(tmp_path, monkeypatch):
    state = {"a": jnp.ones(2)}
    write_checkpoint(tmp_path / "one", state, {})
    ours = jaxrl5g.__version__
    monkeypatch.setattr(jaxrl5g, "__version__", "99.0.0")
    with pytest.raises(CheckpointError, match=f"version {ours}, and this program has 99.0.0"):
        load_checkpoint(tmp_path / "one", state)
    assert read_checkpoint(tmp_path / "one")[0]["jaxrl5g"] == ours  # told, not refused

    stored = tmp_path / "one" / "metadata" / "metadata"
    stored.write_text(json.dumps(json.loads(stored.read_text()) | {"format": 2}))
    with pytest.raises(CheckpointError, match="format 2, and this program has 1"):
        read_checkpoint(tmp_path / "one")


def test_a_part_is_read_without_the_program_that_made_it(tmp_path):
    state = {"agents": [a_learner(1.0), a_learner(2.0)], "count": 3}
    write_checkpoint(tmp_path / "one", state, {"config": CONFIG})
    metadata, part = read_checkpoint(tmp_path / "one", "agents/1/optimiser")
    moments = part["1"]["0"]["mu"]["dense/0"]["kernel"]
    assert isinstance(moments, np.ndarray) and moments.shape == (2, 3)
    assert metadata["config"] == CONFIG

    _, whole = read_checkpoint(tmp_path / "one")
    assert whole["count"] == 3
    np.testing.assert_array_equal(
        whole["agents"]["1"]["parameters"]["dense/0"]["kernel"], np.full((2, 3), 2.0)
    )
    assert bits(whole["agents"]["0"]["key"]) == bits(state["agents"][0].key)
    assert bits(whole["agents"]["0"]["extras"]["1"]) == bits(state["agents"][0].extras[1])
    assert bits(whole["agents"]["0"]["extras"]["2"]) == bits(state["agents"][0].extras[2])
    _, kernel = read_checkpoint(tmp_path / "one", "agents/0/environments/slot")
    np.testing.assert_array_equal(kernel, [3, -1])
    with pytest.raises(CheckpointError, match="no part 'actor'; it has agents, count"):
        read_checkpoint(tmp_path / "one", "actor")


def test_only_the_part_asked_for_is_read(tmp_path):
    """With the other array's data gone, the part still loads and the whole does not."""
    noise = np.random.default_rng(0).standard_normal(200_000)
    write_checkpoint(tmp_path / "one", {"large": noise, "small": np.arange(3.0)}, {})
    for file in (tmp_path / "one" / "state").rglob("*"):
        if file.is_file() and file.stat().st_size > 100_000:
            os.truncate(file, 10)
    np.testing.assert_array_equal(read_checkpoint(tmp_path / "one", "small")[1], np.arange(3.0))
    with pytest.raises(CheckpointError, match="is damaged"):
        read_checkpoint(tmp_path / "one")


@pytest.mark.parametrize("make", ["absent", "empty", "no metadata", "a file"])
def test_what_is_not_a_checkpoint_is_called_that(tmp_path, make):
    path = tmp_path / "one"
    if make == "empty":
        path.mkdir()
    elif make == "a file":
        path.write_text("no")
    elif make == "no metadata":
        write_checkpoint(path, {"a": jnp.ones(2)}, {})
        shutil.rmtree(path / "metadata")
    with pytest.raises(CheckpointError, match="one holds no complete checkpoint"):
        load_checkpoint(path, {"a": jnp.ones(2)})


def test_what_cannot_be_saved_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\['b'\] is a str"):
        write_checkpoint(tmp_path / "one", {"a": jnp.ones(2), "b": "text"}, {})
    with pytest.raises(ValueError, match=r"\['b'\] is a ndarray"):
        write_checkpoint(tmp_path / "one", {"b": np.asarray(["text"])}, {})
    with pytest.raises(ValueError, match="at least one array"):
        write_checkpoint(tmp_path / "one", {"a": jnp.ones((0, 2))}, {})
    assert not (tmp_path / "one").exists()


@pytest.mark.parametrize("value", [float("nan"), object(), Path("x")])
def test_a_configuration_is_json(value):
    with pytest.raises(ValueError, match="config must be a dict of finite JSON values"):
        plain_config({"a": {"b": value}})


def test_latest_and_best_are_kept_and_nothing_else(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    assert folder.path("latest") is None
    for total, best in ((1, False), (2, True), (3, False), (5, False)):
        folder.save(total, {"a": jnp.full(2, total)}, {"total": total}, best=best)
    (folder.folder / "notes").mkdir()  # not ours
    folder.save(9, {"a": jnp.full(2, 9)}, {"total": 9}, best=False)

    like = {"a": jnp.zeros(2, jnp.int32)}
    assert load_checkpoint(folder.folder / "latest", like)[0]["a"].tolist() == [9, 9]
    assert load_checkpoint(folder.folder / "best", like)[0]["a"].tolist() == [2, 2]
    assert sorted(entry.name for entry in folder.folder.iterdir()) == [
        "00000002",
        "00000009",
        "index.json",
        "notes",
    ]
    with pytest.raises(ValueError, match="never overwritten"):
        folder.save(2, {"a": jnp.full(2, 2)}, {}, best=False)
    with pytest.raises(CheckpointError, match="no checkpoint 'worst'; it has best, latest"):
        load_checkpoint(folder.folder / "worst", like)


def test_half_made_checkpoints_are_never_picked_up(tmp_path):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.save(3, {"a": jnp.full(2, 3)}, {"total": 3}, best=False)
    good = folder.folder / "00000003"
    shutil.copytree(good, folder.folder / "00000007")  # complete, but never committed
    shutil.copytree(good, folder.folder / "00000008")
    shutil.rmtree(folder.folder / "00000008" / "state")
    (folder.folder / "00000009").mkdir()
    shutil.copytree(good, folder.folder / "00000010.orbax-checkpoint-tmp")
    (folder.folder / "index.json.partial").write_text('{"latest": "000')

    assert folder.path("latest") == good
    assert read_metadata(good)["total"] == 3
    # saving over the remains of a killed save works, and sweeps up
    folder.save(10, {"a": jnp.full(2, 10)}, {"total": 10}, best=False)
    assert load_checkpoint(folder.folder / "latest", {"a": jnp.zeros(2, jnp.int32)})[0][
        "a"
    ].tolist() == [10, 10]
    assert sorted(p.name for p in folder.folder.iterdir()) == ["00000010", "index.json"]


def test_a_save_that_fails_before_its_commit_leaves_the_old_one(tmp_path, monkeypatch):
    folder = CheckpointFolder(tmp_path / "checkpoints")
    folder.save(1, {"a": jnp.ones(2)}, {"total": 1}, best=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("jaxrl5g.rl.checkpoints.os.replace", full)
        with pytest.raises(OSError, match="No space left"):
            folder.save(2, {"a": jnp.zeros(2)}, {"total": 2}, best=True)
    for name in ("latest", "best"):
        assert read_metadata(folder.folder / name)["total"] == 1
    folder.save(2, {"a": jnp.zeros(2)}, {"total": 2}, best=True)
    assert read_metadata(folder.folder / "best")["total"] == 2


def test_arrays_over_eight_devices_come_back_where_they_were_and_load_on_one(tmp_path):
    script = """
        import sys, jax, jax.numpy as jnp
        from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
        from jaxrl5g.rl.checkpoints import load_checkpoint, write_checkpoint
        mesh = jax.make_mesh((8,), ("env",), axis_types=(jax.sharding.AxisType.Auto,))
        split, whole = NamedSharding(mesh, P("env")), NamedSharding(mesh, P())
        def put(scale):
            return {
                "env": jax.device_put(scale * jnp.arange(16.0), split),
                "keys": jax.device_put(jax.random.split(jax.random.key(scale), 8), split),
                "weights": jax.device_put(scale * jnp.ones(3), whole),
            }
        write_checkpoint(sys.argv[1], put(2), {})
        loaded, _ = load_checkpoint(sys.argv[1], put(1))
        for name, leaf in put(2).items():
            assert loaded[name].sharding == leaf.sharding, name
            assert (loaded[name] == leaf).all(), name
    """
    flags = "--xla_force_host_platform_device_count=8"
    subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path / "one")],
        env=os.environ | {"XLA_FLAGS": flags, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        check=True,
    )
    like = {
        "env": jnp.zeros(16),
        "keys": jax.random.split(jax.random.key(0), 8),
        "weights": jnp.zeros(3),
    }
    loaded, _ = load_checkpoint(tmp_path / "one", like)
    np.testing.assert_array_equal(loaded["env"], 2 * np.arange(16.0))
    assert (loaded["keys"] == jax.random.split(jax.random.key(2), 8)).all()
