"""Networks: permutations, padding, masks and gradients, and the scale of the first output."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrl5g.rl import ACTIVATIONS, MLP, Equivariant, Pooled

BATCH, USERS, FEATURES, SHARED, HIDDEN, OUT = 3, 6, 4, 2, 16, 2
ACTOR = Equivariant((HIDDEN, HIDDEN), OUT, final_scale=1.0, linear=True)
CRITIC = Pooled((HIDDEN, HIDDEN))
NETWORKS = {"actor": ACTOR, "critic": CRITIC}
FRESH = Equivariant((HIDDEN, HIDDEN), OUT)  # a policy as it starts, without context
PLAIN = MLP((8, 12, 5), "relu", final_scale=0.3)
seeds = st.integers(0, 2**32 - 1)
names = st.sampled_from(list(NETWORKS))


def init(network, *given):
    return jax.jit(network.init)(jax.random.key(0), *given)


PARAMS = {}
APPLY = {name: jax.jit(network.apply) for name, network in NETWORKS.items()}


@jax.jit
def actor_gradient(params, *given):
    return jax.grad(lambda *x: jnp.sum(ACTOR.apply(params, *x) ** 2), (0, 2))(*given)


@jax.jit
def critic_gradient(params, *given):
    return jax.grad(lambda *x: jnp.sum(CRITIC.apply(params, *x) ** 2), (0, 2))(*given)


GRADIENT = {"actor": actor_gradient, "critic": critic_gradient}


@pytest.fixture(scope="module")
def fresh():
    return init(FRESH, jnp.zeros((USERS, FEATURES)))


@pytest.fixture(scope="module")
def plain():
    return init(PLAIN, jnp.zeros((1, FEATURES)))


@pytest.fixture(autouse=True, scope="module")
def params():
    """Parameters of both, no bias 0, as after training."""
    rng = np.random.default_rng(1)
    given = jnp.zeros((USERS, FEATURES)), jnp.ones(USERS, bool), jnp.zeros(SHARED)
    for name, network in NETWORKS.items():
        shapes = jax.eval_shape(network.init, jax.random.key(0), *given)
        PARAMS[name] = jax.tree.map(
            lambda leaf: (rng.normal(size=leaf.shape) / np.sqrt(leaf.shape[0])).astype(np.float32),
            shapes,
        )


def inputs(seed, users=USERS):
    rng = np.random.default_rng(seed)
    elements = rng.normal(size=(BATCH, users, FEATURES)).astype(np.float32)
    mask = rng.random((BATCH, users)) < 0.7
    return elements, mask, rng.normal(size=(BATCH, SHARED)).astype(np.float32)


def apply(name, *given):
    return np.asarray(APPLY[name](PARAMS[name], *given))


@settings(max_examples=25, deadline=None)
@given(seed=seeds, permutation=st.permutations(range(USERS)))
def test_permuting_users_permutes_actions_and_keeps_values(seed, permutation):
    elements, mask, context = inputs(seed)
    moved = elements[:, permutation], mask[:, permutation], context
    actions = apply("actor", elements, mask, context)
    np.testing.assert_allclose(apply("actor", *moved), actions[:, permutation], atol=1e-5)
    value = apply("critic", elements, mask, context)
    assert value.shape == (BATCH,)
    np.testing.assert_allclose(apply("critic", *moved), value, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(seed=seeds, filler=st.sampled_from([0.0, 1e30, np.inf, np.nan]))
def test_masked_users_are_not_read(seed, filler):
    elements, mask, context = inputs(seed)
    spoilt = np.where(mask[..., None], elements, filler).astype(np.float32)
    for name in NETWORKS:
        assert np.array_equal(
            apply(name, elements, mask, context), apply(name, spoilt, mask, context)
        )
    assert (apply("actor", elements, mask, context)[~mask] == 0).all()


@settings(max_examples=15, deadline=None)
@given(seed=seeds)
def test_padding_changes_nothing(seed):
    elements, mask, context = inputs(seed)
    wide = np.pad(elements, ((0, 0), (0, 5), (0, 0)), constant_values=9.0)
    wide_mask = np.pad(mask, ((0, 0), (0, 5)))
    padded = apply("actor", wide, wide_mask, context)
    np.testing.assert_allclose(
        padded[:, :USERS], apply("actor", elements, mask, context), atol=1e-5
    )
    assert (padded[:, USERS:] == 0).all()
    np.testing.assert_allclose(
        apply("critic", wide, wide_mask, context),
        apply("critic", elements, mask, context),
        atol=1e-5,
    )


@settings(max_examples=15, deadline=None)
@given(seed=seeds, filler=st.sampled_from([1.0, np.nan]), name=names)
def test_masked_users_get_no_gradient_and_all_others_do(seed, filler, name):
    elements, mask, context = inputs(seed)
    elements = np.where(mask[..., None], elements, filler).astype(np.float32)
    of_elements, of_context = GRADIENT[name](PARAMS[name], elements, mask, context)
    assert np.isfinite(of_elements).all() and np.isfinite(of_context).all()
    assert (np.asarray(of_elements)[~mask] == 0).all()
    assert (np.abs(np.asarray(of_elements)[mask]).max(-1) > 0).all()


@pytest.mark.parametrize("name", NETWORKS)
def test_every_user_and_the_context_influence_every_output(name):
    elements, _, context = inputs(0)
    everyone = np.ones((BATCH, USERS), bool)
    before = apply(name, elements, everyone, context)
    other = elements.copy()
    other[:, 0] += 1
    assert (apply(name, other, everyone, context) != before).all()
    assert (apply(name, elements, everyone, context + 1) != before).all()
    without = everyone.copy()
    without[:, 0] = False
    changed = apply(name, elements, without, context) != before
    assert changed.all()


@pytest.mark.parametrize("name", NETWORKS)
def test_nobody_there_is_finite(name):
    elements, mask, context = inputs(1)
    nobody = np.zeros_like(mask)
    got = apply(name, np.full_like(elements, np.nan), nobody, context)
    assert np.isfinite(got).all() and (name == "critic" or (got == 0).all())
    for gradient in GRADIENT[name](PARAMS[name], elements, nobody, context):
        assert np.isfinite(gradient).all()


def test_summary_is_mean_and_maximum_of_the_unmasked():
    """The critic in NumPy, from its own parameters."""
    elements, mask, context = inputs(2)
    layers = jax.tree.map(lambda x: np.asarray(x, float), PARAMS["critic"]["params"])

    def dense(layer, x):
        return x @ layer["kernel"] + layer["bias"]

    expected = []
    for row, present, shared in zip(elements, mask, context, strict=True):
        hidden = np.tanh(dense(layers["Dense_0"], row[present]))
        pooled = np.concatenate([hidden.mean(0), hidden.max(0), shared])
        hidden = np.tanh(dense(layers["MLP_0"]["Dense_0"], pooled))
        expected.append(dense(layers["MLP_0"]["Dense_1"], hidden)[0])
    np.testing.assert_allclose(apply("critic", elements, mask, context), expected, atol=1e-5)


def test_mask_and_context_are_optional(fresh):
    elements, _, _ = inputs(3)
    everyone = np.ones((BATCH, USERS), bool)
    given = fresh, elements
    assert np.array_equal(jax.jit(FRESH.apply)(*given), jax.jit(FRESH.apply)(*given, everyone))


def test_the_linear_part_adds_a_multiple_of_the_element_itself():
    elements, mask, context = inputs(4)
    rest = {name: leaves for name, leaves in PARAMS["actor"]["params"].items() if name != "linear"}
    without = ACTOR.clone(linear=False).apply({"params": rest}, elements, mask, context)
    kernel = PARAMS["actor"]["params"]["linear"]["kernel"]
    added = np.where(mask[..., None], elements @ kernel, 0.0)
    with_it = apply("actor", elements, mask, context)
    np.testing.assert_allclose(with_it - np.asarray(without), added, rtol=1e-4, atol=1e-5)


def test_a_linear_map_alone_is_one():
    elements, mask, _ = inputs(6)
    network = Equivariant((), OUT, linear=True)
    params = jax.jit(network.init)(jax.random.key(0), elements, mask)
    kernel = params["params"]["linear"]["kernel"]
    expected = np.where(mask[..., None], elements @ kernel, 0.0)
    np.testing.assert_allclose(network.apply(params, elements, mask), expected, atol=1e-6)


def test_a_policy_starts_near_zero(fresh):
    """Hidden activations are at most 1, weights within 2.28 deviations (truncated at 2 of 0.88)."""
    elements, mask, _ = inputs(4)
    output = np.asarray(jax.jit(FRESH.apply)(fresh, elements, mask))
    assert 0 < np.abs(output).max() < 2.28 * 0.01 * np.sqrt(HIDDEN)


def test_weights_have_their_gains_and_biases_are_zero():
    """The variance of a kernel's entries is gain^2 / fan-in."""
    network = MLP((400, 300, 200), final_scale=0.3)
    layers = init(network, np.zeros(500, np.float32))["params"]
    for name, gain in [("Dense_0", np.sqrt(2)), ("Dense_1", np.sqrt(2)), ("Dense_2", 0.3)]:
        kernel = np.asarray(layers[name]["kernel"])
        # 5 deviations of the estimate, whose relative error is at most 1 / sqrt(2 entries)
        tolerance = 5 / np.sqrt(2 * kernel.size)
        np.testing.assert_allclose(kernel.std() * np.sqrt(len(kernel)), gain, rtol=tolerance)
        assert (layers[name]["bias"] == 0).all()


def test_the_part_for_the_set_is_in_the_same_kernel(fresh):
    assert fresh["params"]["_ElementLayer_0"]["kernel"].shape == (3 * HIDDEN, HIDDEN)


def test_plain_network_is_linear_after_its_last_layer(plain):
    given = np.random.default_rng(5).normal(size=(7, FEATURES)).astype(np.float32)
    layers = plain["params"]
    hidden = np.maximum(given @ layers["Dense_0"]["kernel"], 0)
    hidden = np.maximum(hidden @ layers["Dense_1"]["kernel"], 0)
    expected = hidden @ layers["Dense_2"]["kernel"]
    np.testing.assert_allclose(jax.jit(PLAIN.apply)(plain, given), expected, atol=1e-5)
    assert np.min(expected) < 0


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_what_their_names_say(name, plain):
    given = np.random.default_rng(6).normal(size=(7, FEATURES)).astype(np.float32)
    layers = jax.tree.map(lambda x: np.asarray(x, float), plain["params"])
    function = {
        "tanh": np.tanh,
        "relu": lambda x: np.maximum(x, 0),
        "silu": lambda x: x * scipy.special.expit(x),
        "gelu": lambda x: x * scipy.special.ndtr(x),
    }[name]
    hidden = function(given @ layers["Dense_0"]["kernel"])
    expected = function(hidden @ layers["Dense_1"]["kernel"]) @ layers["Dense_2"]["kernel"]
    # gelu is flax's approximation by tanh
    got = jax.jit(PLAIN.clone(activation=name).apply)(plain, given)
    np.testing.assert_allclose(got, expected, atol=2e-3 if name == "gelu" else 1e-5)


def test_bad_sizes_names_and_shapes_are_refused():
    elements, mask, context = inputs(0)

    def shapes(network, *given):
        jax.eval_shape(network.init, jax.random.key(0), *given)

    with pytest.raises(ValueError, match="activation must be one of tanh, relu, .* 'tahn'"):
        shapes(MLP((4, 1), "tahn"), elements)
    with pytest.raises(ValueError, match="at least 1 layers"):
        shapes(MLP(()), elements)
    with pytest.raises(ValueError, match=r"at least 2 layers, got \(4,\)"):
        shapes(Equivariant((4,), 1), elements)
    with pytest.raises(ValueError, match=r"at least 2 layers, got \(\)"):
        shapes(Equivariant((), 1), elements)
    with pytest.raises(ValueError, match="at least 1 layers"):
        shapes(Pooled(()), elements)
    with pytest.raises(ValueError, match=r"elements must be \[..., U, F\]"):
        shapes(Pooled((4,)), elements[0, 0])
    with pytest.raises(ValueError, match="mask of shape"):
        shapes(Pooled((4,)), elements, mask[:, :-1])
    with pytest.raises(ValueError, match="context of shape"):
        shapes(Equivariant((4, 4), 1), elements, mask, context[0])
