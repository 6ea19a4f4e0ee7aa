"""Optimisers: frozen leaves, the norm that is clipped, schedules, and vmapped learning rates."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrl5g.rl import SCHEDULES, OptimiserSettings, build_optimiser, learning_rate_schedule

PARAMS = {
    "actor": {"kernel": jnp.array([[1.0, -2.0], [0.5, 3.0]]), "bias": jnp.array([-0.0, 1e-30])},
    "critic": {"kernel": jnp.array([4.0, -1.0])},
}
ONLY_CRITIC = {"actor": False, "critic": True}


def gradients(scale=1.0):
    return jax.tree.map(lambda x: scale * jnp.cos(7 * x), PARAMS)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def steps(optimiser, params, grads, count=3, state=None):
    """The same gradients applied `count` times: parameters and state."""

    @jax.jit
    def run(params, grads, state):
        for _ in range(count):
            updates, state = optimiser.update(grads, state, params)
            params = optax.apply_updates(params, updates)
        return params, state

    return run(params, grads, optimiser.init(params) if state is None else state)


@pytest.mark.parametrize("bad", [1.0, np.nan, np.inf])
def test_frozen_leaves_stay_bit_equal_and_do_not_touch_the_others(bad):
    settings = OptimiserSettings(learning_rate=0.1, weight_decay=0.3, max_grad_norm=0.5)
    grads = gradients(100.0)
    grads["actor"] = jax.tree.map(lambda g: bad * g, grads["actor"])
    params, state = steps(build_optimiser(settings, ONLY_CRITIC), PARAMS, grads)
    assert bits(params["actor"]) == bits(PARAMS["actor"])
    adam = next(part for part in state if isinstance(part, optax.ScaleByAdamState))
    for moment in (adam.mu, adam.nu):
        assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(moment["actor"]))

    alone, _ = steps(build_optimiser(settings), PARAMS["critic"], grads["critic"])
    np.testing.assert_allclose(params["critic"]["kernel"], alone["kernel"], rtol=1e-6)
    assert np.all(params["critic"]["kernel"] != PARAMS["critic"]["kernel"])


def test_norm_that_is_clipped_is_that_of_trainable_leaves():
    """After Adam a common factor is invisible, so look at the first moment itself."""
    settings = OptimiserSettings(max_grad_norm=0.5)
    huge = gradients(1e6)
    huge["critic"] = {"kernel": jnp.array([0.3, 0.4])}  # of norm 0.5: not clipped
    _, state = steps(build_optimiser(settings, ONLY_CRITIC), PARAMS, huge, 1)
    mu = optax.tree.get(state, "mu")["critic"]["kernel"]
    np.testing.assert_allclose(mu, 0.1 * np.array([0.3, 0.4]), rtol=1e-5)
    _, state = steps(build_optimiser(settings), PARAMS, huge, 1)
    np.testing.assert_allclose(optax.tree.norm(optax.tree.get(state, "mu")), 0.05, rtol=1e-5)


def test_moments_of_frozen_leaves_keep_what_an_earlier_phase_left():
    settings = OptimiserSettings(learning_rate=0.1)
    params, state = steps(build_optimiser(settings), PARAMS, gradients())
    frozen = build_optimiser(settings, ONLY_CRITIC)
    assert jax.tree.structure(frozen.init(PARAMS)) == jax.tree.structure(state)
    _, later = steps(frozen, params, gradients(), 1, state)
    for name in ("mu", "nu"):
        was, now = optax.tree.get(state, name), optax.tree.get(later, name)
        assert bits(was["actor"]) == bits(now["actor"])
        assert bits(was["critic"]) != bits(now["critic"])


def test_trainable_may_be_a_function_of_the_parameters():
    def kernels(params):
        return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)

    settings = OptimiserSettings(learning_rate=0.1)
    params, _ = steps(build_optimiser(settings, kernels), PARAMS, gradients())
    assert bits(params["actor"]["bias"]) == bits(PARAMS["actor"]["bias"])
    assert bits(params["actor"]["kernel"]) != bits(PARAMS["actor"]["kernel"])
    nothing, _ = steps(build_optimiser(settings, False), PARAMS, gradients())
    assert bits(nothing) == bits(PARAMS)
    everything, _ = steps(build_optimiser(settings, True), PARAMS, gradients())
    assert bits(everything) == bits(steps(build_optimiser(settings), PARAMS, gradients())[0])


def test_what_is_trainable_may_be_traced():
    """One compilation for two phases, each equal to its own with the choice fixed."""
    settings = OptimiserSettings(learning_rate=0.1, weight_decay=0.3)

    @jax.jit
    def run(actor, critic):
        optimiser = build_optimiser(settings, {"actor": actor, "critic": critic})
        updates, state = optimiser.update(gradients(), optimiser.init(PARAMS), PARAMS)
        return optax.apply_updates(PARAMS, updates), state

    for choice in ({"actor": False, "critic": True}, {"actor": True, "critic": False}):
        params, state = run(**choice)
        fixed = steps(build_optimiser(settings, choice), PARAMS, gradients(), 1)
        for got, expected in zip(
            jax.tree.leaves((params, state)), jax.tree.leaves(fixed), strict=True
        ):
            np.testing.assert_allclose(got, expected, rtol=1e-6)
        for name, trained in choice.items():
            assert (bits(params[name]) == bits(PARAMS[name])) == (not trained)


def test_one_step_is_adamw_in_float64():
    settings = OptimiserSettings(
        learning_rate=0.01, max_grad_norm=1.0, b1=0.8, b2=0.95, eps=1e-3, weight_decay=0.1
    )
    params, _ = steps(build_optimiser(settings), PARAMS["actor"], gradients()["actor"], 2)
    flat = np.concatenate([np.ravel(x) for x in jax.tree.leaves(PARAMS["actor"])]).astype(float)
    grad = np.concatenate([np.ravel(x) for x in jax.tree.leaves(gradients()["actor"])])
    grad = grad / max(1, np.linalg.norm(grad))
    mu = nu = 0.0
    for count in (1, 2):
        mu, nu = 0.8 * mu + 0.2 * grad, 0.95 * nu + 0.05 * grad**2
        direction = mu / (1 - 0.8**count) / (np.sqrt(nu / (1 - 0.95**count)) + 1e-3)
        flat = flat - 0.01 * (direction + 0.1 * flat)
    got = np.concatenate([np.ravel(x) for x in jax.tree.leaves(params)])
    np.testing.assert_allclose(got, flat, rtol=1e-5)


def test_schedules_go_from_the_first_rate_to_the_last():
    def rates(schedule):
        settings = OptimiserSettings(0.4, 0.1, schedule)
        curve = learning_rate_schedule(settings, 8)
        return [float(curve(count)) for count in (0, 4, 8, 20)]

    np.testing.assert_allclose(rates("constant"), [0.4] * 4, rtol=1e-6)
    np.testing.assert_allclose(rates("linear"), [0.4, 0.25, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(rates("cosine"), [0.4, 0.25, 0.1, 0.1], rtol=1e-6)
    quarter = learning_rate_schedule(OptimiserSettings(0.4, 0.1, "cosine"), 8)(2)
    np.testing.assert_allclose(quarter, 0.1 + 0.3 * (1 + np.cos(np.pi / 4)) / 2, rtol=1e-6)


def test_optimiser_follows_its_schedule():
    """Adam's step on an unchanging gradient is the learning rate."""
    settings = OptimiserSettings(0.4, 0.0, "linear", max_grad_norm=np.inf, eps=1e-12)
    start = jnp.zeros(1)
    for count, expected in [(1, 0.4), (2, 0.7), (4, 1.0), (6, 1.0)]:
        params, _ = steps(build_optimiser(settings, steps=4), start, -jnp.ones(1), count)
        np.testing.assert_allclose(params, [expected], rtol=1e-4)


def quadratic_run(learning_rate, schedule, count):
    """Minimise a quadratic whose curvatures differ tenfold, frozen in one coordinate."""
    settings = dataclasses.replace(
        OptimiserSettings(schedule=schedule), learning_rate=learning_rate
    )
    optimiser = build_optimiser(settings, {"x": True, "fixed": False}, steps=count)
    start = {"x": jnp.array([3.0, -2.0]), "fixed": jnp.array([5.0])}

    def loss(params):
        return jnp.sum(jnp.array([1.0, 10.0]) * (params["x"] - 1) ** 2) + params["fixed"][0] ** 2

    def step(carry, _):
        params, state = carry
        updates, state = optimiser.update(jax.grad(loss)(params), state, params)
        return (optax.apply_updates(params, updates), state), None

    (params, _), _ = jax.lax.scan(step, (start, optimiser.init(start)), length=count)
    return params


def test_vmapped_learning_rates_equal_single_runs_and_reach_the_optimum():
    rates = jnp.array([0.03, 0.1])
    many = jax.jit(jax.vmap(lambda rate: quadratic_run(rate, "cosine", 400)))(rates)
    single = jax.jit(lambda rate: quadratic_run(rate, "cosine", 400))
    for index, rate in enumerate(rates):
        np.testing.assert_allclose(many["x"][index], single(rate)["x"], atol=1e-5)
    np.testing.assert_allclose(many["x"], np.ones((2, 2)), atol=1e-3)
    assert (many["fixed"] == 5).all()
    few = jax.jit(jax.vmap(lambda rate: quadratic_run(rate, "constant", 5)))(rates)
    assert np.abs(few["x"][0] - few["x"][1]).min() > 0.01


def test_bad_settings_are_refused():
    for change, message in [
        (dict(schedule="step"), f"one of {', '.join(SCHEDULES)}, got 'step'"),
        (dict(schedule="linear"), "needs steps of at least 1, got None"),
        (dict(learning_rate=-1.0), "learning_rate must be at least 0, got -1.0"),
        (dict(max_grad_norm=0.0), "max_grad_norm must be above 0"),
        (dict(b2=1.0), r"b2 must be in \[0, 1\)"),
        (dict(learning_rate=float("nan")), "learning_rate must be at least 0, got nan"),
    ]:
        with pytest.raises(ValueError, match=message):
            build_optimiser(OptimiserSettings(**change))
    with pytest.raises(ValueError, match="trainable must hold only bools, got 'yes'"):
        build_optimiser(OptimiserSettings(), {"actor": "yes", "critic": True}).init(PARAMS)
