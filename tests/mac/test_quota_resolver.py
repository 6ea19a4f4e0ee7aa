"""Quota resolver: optimal against SciPy in exact integers, proven by its dual, the same bits
however it is batched, and defined on what is not an instance.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxrl5g.mac import quota_batch
from jaxrl5g.mac.quota_resolver import resolve_quotas

USERS, PRBS, BATCH = 6, 14, 512
SOLVE = jax.jit(jax.vmap(lambda q, w, a: resolve_quotas(q, w, available=a)))
SINGLE = jax.jit(lambda q, w, a: resolve_quotas(q, w, available=a))


def _plain(quotas, weights, available):
    dual = jnp.zeros(quotas.shape, jnp.float32)
    return quota_batch._at_once(quota_batch.Problem(quotas, weights, available, dual), False)


AT_ONCE = jax.jit(_plain)


def solve(quotas, weights, available=None, function=SOLVE, batch=BATCH):
    """Solve instances, repeated to fill the one batch size that is compiled."""
    size, _, num_prbs = weights.shape
    available = np.ones((size, num_prbs), bool) if available is None else available
    arrays = (np.int32(quotas), np.float32(weights), np.asarray(available))
    rows = np.arange(batch) % size
    found = function(*(jnp.asarray(array[rows]) for array in arrays))
    return tuple(np.asarray(array)[:size] for array in found)


def quantised(quotas, weights, available):
    """The documented fixed point, in NumPy: int64[U, N], least weight and scale."""
    weights = np.float32(weights)
    taking_part = np.outer(quotas > 0, available)
    finite = weights[taking_part & np.isfinite(weights)]
    low, high = (finite.min(), finite.max()) if finite.size else (np.float32(0), np.float32(0))
    exponent = max(int(np.frexp(high - low)[1]) if high > low else -200, -100)
    scale = np.float32(2.0 ** (19 - exponent))
    clean = np.clip(np.where(np.isnan(weights), low, weights), low, high)
    fixed = np.floor((np.where(taking_part, clean, low) - low) * scale + np.float32(0.5))
    return fixed.astype(np.int64), low, scale


def optimum(fixed, quotas, available):
    """Largest sum by SciPy: a row for every PRB due to a user, rows of zeros for idle PRBs."""
    rows = np.repeat(fixed, quotas, axis=0)[:, available]
    idle = np.zeros((available.sum() - len(rows), available.sum()), np.int64)
    rows = np.concatenate([rows, idle])
    return rows[linear_sum_assignment(rows, maximize=True)].sum()


def check(quotas, weights, available, owner, dual, gap):
    """Feasible, optimal and certified."""
    fixed, low, scale = quantised(quotas, weights, available)
    owned = owner >= 0
    assert gap == 0
    assert not (owned & ~available).any()
    assert np.bincount(owner[owned], minlength=len(quotas)).tolist() == quotas.tolist()
    value = fixed[owner[owned], np.flatnonzero(owned)].sum()
    assert value == optimum(fixed, quotas, available)
    # the bound, recomputed from what was returned; float32 may hold the price less finely
    assert np.isfinite(dual).all()
    some = quotas > 0
    price = np.rint((dual[some].astype(float) - low) * scale).astype(np.int64)
    margins = (fixed[some] - price[:, None])[:, available]
    bound = np.maximum(margins.max(axis=0, initial=0), 0).sum() + (quotas[some] * price).sum()
    coarse = np.spacing(np.abs(dual[some]).max(initial=0)) * float(scale)
    assert value <= bound <= value + (2 * coarse * len(owner) if coarse > 0.5 else 0)


def check_all(quotas, weights, available, found):
    for row in zip(quotas, weights, available, *found, strict=True):
        check(*row)


def draw_quotas(rng, size, num_users, num_prbs):
    shares = rng.dirichlet(np.full(num_users, 0.7), size)
    return np.stack([rng.multinomial(num_prbs, share) for share in shares])


def rayleigh(rng, size, num_users=USERS, num_prbs=PRBS):
    """r / T of users at different distances."""
    snr = 10 ** rng.uniform(-1, 2.5, (size, num_users, 1))
    rate = np.log2(1 + snr * rng.exponential(size=(size, num_users, num_prbs)))
    return rate / rate.mean(-1, keepdims=True) * rng.lognormal(0, 0.5, (size, num_users, 1))


SHAPE = (BATCH, USERS, PRBS)
KINDS = {
    "rayleigh": lambda rng: rayleigh(rng, BATCH),
    "all equal": lambda rng: np.full(SHAPE, 3.7),
    "identical users": lambda rng: np.repeat(rng.random((BATCH, 1, PRBS)), USERS, 1),
    "binary": lambda rng: rng.integers(0, 2, SHAPE),
    "flat channels": lambda rng: np.repeat(rng.random((BATCH, USERS, 1)), PRBS, 2),
    "few levels": lambda rng: rng.integers(0, 4, SHAPE),
    "subbands": lambda rng: np.repeat(rng.random((BATCH, USERS, 4)), 4, 2)[..., :PRBS],
    "negative": lambda rng: rng.normal(-1e6, 1.0, SHAPE),
    "heavy tails": lambda rng: rng.lognormal(0, 5, SHAPE),
    "rank one": lambda rng: rng.random((BATCH, USERS, 1)) * rng.random((BATCH, 1, PRBS)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_optimal_and_certified(kind):
    rng = np.random.default_rng(list(KINDS).index(kind))
    weights = KINDS[kind](rng).astype(np.float32)
    quotas = draw_quotas(rng, BATCH, USERS, PRBS)
    everything = np.eye(USERS, dtype=int)[rng.integers(0, USERS, 20)] * PRBS
    quotas[:20] = everything  # one user takes all
    available = np.ones((BATCH, PRBS), bool)
    check_all(quotas, weights, available, solve(quotas, weights))


def test_some_prbs_are_not_available_and_some_stay_idle():
    rng = np.random.default_rng(0)
    weights = np.float32(rayleigh(rng, BATCH))
    available = rng.random((BATCH, PRBS)) < 0.7
    room = rng.integers(0, available.sum(1) + 1)
    quotas = np.stack([draw_quotas(rng, 1, USERS, n)[0] for n in room])
    owner, dual, gap = solve(quotas, weights, available)
    check_all(quotas, weights, available, (owner, dual, gap))


def test_quotas_that_cannot_be_met_own_nothing():
    weights = np.float32(rayleigh(np.random.default_rng(0), 4))
    quotas = np.zeros((4, USERS), int)
    quotas[0, 0] = PRBS + 1
    quotas[1, :2] = PRBS, -1
    quotas[2, :2] = 2**31 - 1, 2**31 - 1  # whose sum would wrap round
    quotas[3, :2] = PRBS - 1, 1
    owner, dual, gap = solve(quotas, weights)
    assert gap.tolist() == [-1, -1, -1, 0]
    assert (owner[:3] == -1).all() and np.isfinite(dual).all()
    # PRBs that are not available do not count
    _, _, gap = solve(quotas[3:], weights[3:], np.arange(PRBS)[None] > 0)
    assert gap == -1


def test_weights_that_are_not_numbers():
    rng = np.random.default_rng(0)
    weights = np.float32(rng.normal(size=SHAPE))
    for value in (np.nan, np.inf, -np.inf, 3e38, -3e38):
        weights[rng.random(SHAPE) < 0.1] = value
    weights[0], weights[1], weights[2] = np.nan, np.inf, 1e-45
    weights[3:40] = np.where(rng.random((37, USERS, PRBS)) < 0.5, np.nan, 1.0)
    quotas = draw_quotas(rng, BATCH, USERS, PRBS)
    available = np.ones((BATCH, PRBS), bool)
    found = solve(quotas, weights)
    clipped = np.where(np.isfinite(weights), np.clip(weights, -1e37, 1e37), weights)
    check_all(quotas, clipped, available, found)


def test_a_user_without_quota_may_have_any_weights():
    rng = np.random.default_rng(0)
    weights = np.float32(rayleigh(rng, BATCH))
    quotas = draw_quotas(rng, BATCH, USERS, PRBS)
    expected = solve(quotas, weights)
    garbage = rng.choice([np.nan, np.inf, -np.inf, 1e30, 0.0], SHAPE)
    owner, dual, gap = solve(quotas, np.where(quotas[..., None] > 0, weights, garbage))
    assert (owner == expected[0]).all() and (gap == 0).all()
    assert (dual == expected[1])[quotas > 0].all() and np.isfinite(dual).all()


def test_one_result_however_it_is_computed():
    """Alone, side by side in any order and company, and by the form of other backends."""
    rng = np.random.default_rng(0)
    kinds = [make(rng)[:52] for make in KINDS.values()]
    weights = np.concatenate(kinds)[:BATCH]
    quotas = draw_quotas(rng, BATCH, USERS, PRBS)
    available = rng.random((BATCH, PRBS)) < 0.9
    quotas[np.arange(BATCH) % 3 > 0, 0] = 0  # of the sums, some are met and some are not
    side_by_side = solve(quotas, weights, available)
    order = rng.permutation(BATCH)
    shuffled = solve(quotas[order], weights[order], available[order])
    plain = solve(quotas, weights, available, AT_ONCE)
    for one, two, three in zip(side_by_side, shuffled, plain, strict=True):
        assert (one[order] == two).all() and (one == three).all()
    for row in range(0, BATCH, 9):
        arrays = (np.int32(quotas[row]), np.float32(weights[row]), available[row])
        alone = SINGLE(*arrays)
        for one, many in zip(alone, side_by_side, strict=True):
            assert (np.asarray(one) == many[row]).all()


def test_permutations_of_users_and_prbs_where_the_optimum_is_unique():
    rng = np.random.default_rng(0)
    weights = rng.integers(0, 2**18, SHAPE)
    quotas = draw_quotas(rng, BATCH, USERS, PRBS)
    owner, _, _ = solve(quotas, weights)
    users, prbs = rng.permutation(USERS), rng.permutation(PRBS)
    permuted, _, _ = solve(quotas[:, users], weights[:, users][:, :, prbs])
    everything = np.ones(PRBS, bool)
    compared = 0
    for row in range(60):
        # one less for what was chosen: only another optimum could then keep the value
        less = (PRBS + 1) * weights[row]
        less[owner[row], np.arange(PRBS)] -= 1
        value = weights[row][owner[row], np.arange(PRBS)].sum()
        if optimum(less, quotas[row], everything) == (PRBS + 1) * value - PRBS:
            compared += 1
            assert (users[permuted[row]] == owner[row][prbs]).all()
    assert compared > 50


def test_proportional_fair_at_the_size_of_a_cell():
    """PF's own counts give PF's own assignment; other quotas an optimum."""
    rng = np.random.default_rng(0)
    weights = np.float32(rayleigh(rng, 128, 16, 51))
    weights[:32] = np.round(weights[:32])  # ties
    fair = weights.argmax(axis=1)
    quotas = draw_quotas(rng, 128, 16, 51)
    counts = np.stack([np.bincount(row, minlength=16) for row in fair])
    quotas[:64] = counts[:64]
    available = np.ones((128, 51), bool)
    owner, dual, gap = solve(quotas, weights, batch=128)
    assert (owner[:64] == fair[:64]).all()
    check_all(quotas, weights, available, (owner, dual, gap))


def test_the_largest_size():
    rng = np.random.default_rng(0)
    weights = np.float32(rayleigh(rng, 3, 64, 273))
    weights[1] = rng.integers(0, 3, (64, 273))
    quotas = draw_quotas(rng, 3, 64, 273)
    found = solve(quotas, weights, function=AT_ONCE, batch=3)
    check_all(quotas, weights, np.ones((3, 273), bool), found)


@pytest.mark.parametrize(("num_users", "num_prbs"), [(1, 3), (3, 1)])
def test_one_user_or_one_prb(num_users, num_prbs):
    weights = np.float32(np.random.default_rng(0).random((num_users, num_prbs)))
    quotas = np.zeros(num_users, np.int32)
    quotas[-1] = num_prbs
    owner, _, gap = resolve_quotas(quotas, weights)
    assert (np.asarray(owner) == num_users - 1).all() and gap == 0


def test_a_carried_dual_changes_no_value():
    rng = np.random.default_rng(0)
    before = np.float32(rayleigh(rng, 60))
    after = before * np.float32(rng.lognormal(0, 0.05, before.shape))
    quotas = draw_quotas(rng, 60, USERS, PRBS)
    dual = np.array(solve(quotas, before)[1])
    dual[:3], dual[3:6], dual[6:9] = np.nan, np.inf, -1e30
    warm = jax.jit(jax.vmap(resolve_quotas))(np.int32(quotas), after, jnp.asarray(dual))
    found = tuple(np.asarray(array) for array in warm)
    check_all(quotas, after, np.ones((60, PRBS), bool), found)


def test_groups_of_prbs_go_together():
    rng = np.random.default_rng(0)
    weights = np.float32(rng.integers(0, 100, (3, 8)))  # groups 012 345 67
    available = np.arange(8) != 4
    quotas = np.array([1, 0, 1], np.int32)
    owner, _, gap = resolve_quotas(quotas, weights, available=available, block_size=3)
    assert gap == 0
    sums = np.stack([weights[:, :3].sum(1), weights[:, 6:].sum(1)], 1)
    first, last = (0, 2) if sums[0, 0] + sums[2, 1] >= sums[2, 0] + sums[0, 1] else (2, 0)
    assert owner.tolist() == [first] * 3 + [-1] * 3 + [last] * 2


def test_nested_batches_loops_and_gradients():
    rng = np.random.default_rng(0)
    weights = jnp.asarray(rng.random((2, 3, 3, 5)), jnp.float32)
    quotas = jnp.asarray(draw_quotas(rng, 2, 3, 5), jnp.int32)  # shared by the inner axis
    nested = jax.vmap(jax.vmap(resolve_quotas, (None, 0)))

    def loss(weights):
        owner, dual, gap = nested(quotas, weights)
        return jnp.sum(weights) + jnp.sum(dual) + jnp.sum(owner) * 1.0, (owner, gap)

    gradient, (owner, gap) = jax.jit(jax.grad(loss, has_aux=True))(weights)
    assert (gradient == 1).all() and (gap == 0).all()
    alone = jax.jit(jax.grad(lambda w: jnp.sum(resolve_quotas(quotas[0], w)[1])))(weights[0, 0])
    assert (alone == 0).all()

    def slot(dual, weights):
        owner, dual, _ = resolve_quotas(quotas[1], weights, dual)
        return dual, owner

    _, scanned = jax.jit(lambda w: jax.lax.scan(slot, jnp.zeros(3), w))(weights[1])
    mapped = jax.jit(lambda w: jax.lax.map(lambda w: resolve_quotas(quotas[1], w)[0], w))(
        weights[1]
    )
    assert (scanned == owner[1]).all() and (mapped == owner[1]).all()


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (([1.0, 1.0], np.ones((2, 2))), {}, "quotas must be integers, got float32"),
        (([1, 1], np.ones((3, 2))), {}, r"quotas must be \[U\] and weights \[U, N\]"),
        (([1], np.ones((1, 0))), {}, "1 to 126 users and 1 to 4096 PRBs, got 1 and 0"),
        ((np.ones(127, int), np.ones((127, 2))), {}, "got 127 and 2"),
        (([2], np.ones((1, 2)), [0.0, 0.0]), {}, r"dual must have shape \(1,\), got \(2,\)"),
        (([2], np.ones((1, 2))), {"available": [True]}, r"available must have shape \(2,\)"),
        (([2], np.ones((1, 2))), {"block_size": 0}, "block_size must be a positive integer"),
    ],
)
def test_what_cannot_be_an_instance_is_named(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        resolve_quotas(*map(np.asarray, arguments), **options)
