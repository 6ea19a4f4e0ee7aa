"""A learner's state as arrays with names: what a checkpoint stores and checks.

A leaf is an array, a typed key array or a Python bool, int or float. Everything else of a state is
its structure, which is not stored: the program that loads has it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SCALARS = {bool: "Python bool", int: "Python int", float: "Python float"}


def settled(state: Any) -> Any:
    """Return `state` with every leaf a strongly typed jax.Array.

    A weakly typed leaf promotes otherwise than the same number read from a file; without them a
    resumed run computes what the unbroken one does, and a second call compiles nothing anew.
    """
    return jax.tree.map(_settle, state)


def _settle(leaf: Any) -> jax.Array:
    if is_key(leaf):
        return leaf
    array = jnp.asarray(leaf)
    return jax.lax.convert_element_type(array, array.dtype) if array.weak_type else array


def is_key(leaf: Any) -> bool:
    """Return whether a leaf is an array of typed PRNG keys."""
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def describe(state: Any) -> list[dict[str, Any]]:
    """Return the JSON-able description of each leaf, in JAX's order.

    `path` as JAX writes it (`.learner['w'][0]`), `names` along it, `dtype`, `shape`, and for typed
    keys `impl`.

    Raises:
        ValueError: a leaf is not an array or a Python number.
    """
    described = []
    for path, leaf in jax.tree_util.tree_flatten_with_path(state)[0]:
        name = jax.tree_util.keystr(path)
        entry = {
            "path": name,
            "names": [jax.tree_util.keystr((key,), simple=True) for key in path],
        }
        if type(leaf) in _SCALARS:
            entry |= {"dtype": _SCALARS[type(leaf)], "shape": []}
        elif _numeric(leaf):
            entry |= {"dtype": str(leaf.dtype), "shape": list(leaf.shape)}
            if is_key(leaf):
                entry["impl"] = _impl(leaf)
        else:
            raise ValueError(
                f"a state holds arrays, typed keys and Python numbers, but {name or 'it'} "
                f"is a {type(leaf).__name__}"
            )
        described.append(entry)
    return described


def _numeric(leaf: Any) -> bool:
    if not (hasattr(leaf, "dtype") and hasattr(leaf, "shape")):
        return False
    return is_key(leaf) or leaf.dtype == bool or jnp.issubdtype(leaf.dtype, jnp.number)


def _impl(leaf: Any) -> str:
    if isinstance(leaf, jax.Array):
        return str(jax.random.key_impl(leaf))
    return str(jax.random.key_impl(jnp.empty((), leaf.dtype)))  # a ShapeDtypeStruct


def summary(described: list[dict[str, Any]]) -> dict[str, str]:
    """Return path to `float32[3, 4]`, which two states share when one can stand for the other."""
    return {entry["path"]: f"{entry['dtype']}{entry['shape']}" for entry in described}


def total_bytes(state: Any) -> int:
    """Return the bytes of all leaves, as they are stored."""
    return sum(_stored(leaf).nbytes for leaf in jax.tree.leaves(state))


def to_stored(state: Any) -> dict[str, Any]:
    """Return the leaves by their place in the order, `{"0": array, ...}`, keys as their data.

    Empty arrays are left out: their description says it all.
    """
    stored = {str(place): _stored(leaf) for place, leaf in enumerate(jax.tree.leaves(state))}
    return {place: array for place, array in stored.items() if array.size}


def _stored(leaf: Any) -> jax.Array | np.ndarray:
    if is_key(leaf):
        return jax.random.key_data(leaf)
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def empty(entry: dict[str, Any]) -> bool:
    """Return whether a described leaf has no element, and so is not stored."""
    return 0 in entry["shape"]


def from_stored(stored: np.ndarray | None, entry: dict[str, Any], like: Any) -> Any:
    """Return a stored array as a leaf of the kind, and on the devices, that `like` is.

    Args:
        stored: the array of `to_stored`; None for a leaf without elements.
        entry: the leaf's description.
        like: a leaf of the same dtype and shape, or its ShapeDtypeStruct.
    """
    array = _rebuilt(stored, entry)
    if type(like) in _SCALARS:
        return type(like)(array.item())
    if isinstance(like, np.ndarray | np.generic):
        return array
    if not is_key(like):
        array = jnp.asarray(array)
    return jax.device_put(array, like.sharding) if getattr(like, "committed", False) else array


def to_nested(described: list[dict[str, Any]], stored: dict[int, np.ndarray]) -> Any:
    """Return stored arrays as nested dicts by the names on their paths; NumPy, but for typed keys.

    Args:
        described: every leaf of the state.
        stored: the arrays wanted, by place; empty ones need not be among them.
    """
    nested: dict[str, Any] = {}
    for place, entry in enumerate(described):
        if place not in stored and not empty(entry):
            continue
        leaf = _rebuilt(stored.get(place), entry)
        if not entry["names"]:
            return leaf
        folder = nested
        for name in entry["names"][:-1]:
            folder = folder.setdefault(name, {})
        folder[entry["names"][-1]] = leaf
    return nested


def _rebuilt(stored: np.ndarray | None, entry: dict[str, Any]) -> Any:
    """The leaf as NumPy array, or as keys; None stands for no elements."""
    if "impl" not in entry:
        return np.zeros(entry["shape"], jnp.dtype(entry["dtype"])) if stored is None else stored
    if stored is None:
        return jax.random.split(jax.random.key(0, impl=entry["impl"]), tuple(entry["shape"]))
    return jax.random.wrap_key_data(jnp.asarray(stored), impl=entry["impl"])
