"""Whole slots against a float64 NumPy reference, written from the specification.

Every slot starts from the environment's own state. Where the float64 value of a decision lies
within float32 rounding of its threshold, either outcome is right: such users are counted, and
everything that follows from the decision within that slot is not compared.
"""

from __future__ import annotations

import functools
import math
from fractions import Fraction
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxrl5g
from jaxrl5g import mac, phy
from jaxrl5g.env import block_uniforms
from jaxrl5g.mac import Allocation
from jaxrl5g.phy.mcs import mcs_arrays
from jaxrl5g.phy.nr_curves import nr_curves
from jaxrl5g.phy.sionna_curves import sionna_bler

SLOTS = 40

# ------------------------------------------------------------------ transport blocks (TS 38.214)
SIZES = [*range(24, 193, 8), *range(208, 385, 16)] + [
    int(size)
    for size in """408 432 456 480 504 528 552 576 608 640 672 704 736 768 808 848 888 928 984
    1032 1064 1128 1160 1192 1224 1256 1288 1320 1352 1416 1480 1544 1608 1672 1736 1800 1864 1928
    2024 2088 2152 2216 2280 2408 2472 2536 2600 2664 2728 2792 2856 2976 3104 3240 3368 3496 3624
    3752 3824""".split()
]


@functools.cache
def transport_block(mcs, num_re, table):
    """(bits, bits per code block with CRC, code blocks), in rational arithmetic."""
    orders, rates = mcs_arrays(table)
    rate = Fraction(float(rates[mcs]))
    info = num_re * rate * int(orders[mcs])
    if info <= 3824:
        step = 2 ** max(3, _floor_log2(info) - 6)
        wanted = max(24, step * math.floor(info / step))
        bits = min(size for size in SIZES if size >= wanted)
    else:
        step = 2 ** (_floor_log2(info - 24) - 5)
        wanted = max(3840, step * math.floor((info - 24) / step + Fraction(1, 2)))
        if rate <= Fraction(1, 4):
            blocks = math.ceil(Fraction(wanted + 24, 3816))
        else:
            blocks = math.ceil(Fraction(wanted + 24, 8424)) if wanted > 8424 else 1
        bits = 8 * blocks * math.ceil(Fraction(wanted + 24, 8 * blocks)) - 24
    blocks = 1
    if bits > 3824 and rate <= Fraction(1, 4):
        blocks = math.ceil(Fraction(bits + 24, 3816))
    elif bits + 24 > 8448:
        blocks = math.ceil(Fraction(bits + 24, 8424))
    crc = 24 if bits > 3824 else 16
    return bits, (bits + crc) // blocks + (24 if blocks > 1 else 0), blocks


def _floor_log2(value):
    return max(exponent for exponent in range(-4, 40) if Fraction(2) ** exponent <= value)


# ---------------------------------------------------------------------------------- error model
def block_error(mcs, size, sinr, table, fidelity):
    """Code block error rate at a linear SINR: knots of the shipped curves, our interpolation."""
    sinr_db = min(max(10 * math.log10(sinr), -60.0), 90.0)
    if fidelity == "sionna":
        grid = sionna_bler(table)[mcs]
        row, column = round((size - 24) / 100), round((sinr_db + 5) * 10)
        return float(grid[min(max(row, 0), 20), min(max(column, 0), 350)])
    curves = nr_curves(table)
    knots = curves.log_bler[mcs, nearest_row(size)]
    place = (sinr_db + float(curves.shift_db[mcs]) - curves.start_db) / curves.step_db
    left = min(max(math.floor(place), 0), len(knots) - 2)
    low, high = float(knots[left]), float(knots[left + 1])
    return 10.0 ** min(low + (place - left) * (high - low), 0.0)


@functools.cache
def nearest_row(size):
    """Of 48 code block sizes spaced evenly in the logarithm from 24 to 2000 bits."""
    sizes = np.geomspace(24, 2000, 48)
    return int(np.argmin(np.abs(np.log(sizes) - np.log(np.clip(size, 24, 2000)))))


def error_rate(mcs, num_re, sinr, table, fidelity):
    _, size, blocks = transport_block(mcs, num_re, table)
    return 1 - (1 - min(block_error(mcs, size, sinr, table, fidelity), 1.0)) ** blocks


def beta(mcs, table):
    return float(phy.eesm_beta(table)[mcs])


def effective(sinr, mcs, table):
    b, least = beta(mcs, table), sinr.min()
    mean = np.exp((least - sinr) / b).mean()
    return min(max(least - b * math.log(mean), 1e-3), 1e3)


def select(sinr_of, num_re, target, table, fidelity):
    """Highest MCS that keeps the target, else the lowest there are curves for."""
    every = range(len(mcs_arrays(table)[0]))
    if fidelity == "sionna":
        every = [mcs for mcs in every if np.isfinite(sionna_bler(table)[mcs]).all()]
    met = [m for m in every if error_rate(m, num_re, sinr_of(m), table, fidelity) <= target]
    return max(met, default=min(every))


def margin(sinr, mcs, table, fidelity):
    """Relative error that float32 may make in an effective SINR and its look-up."""
    if fidelity == "sionna":
        return 3e-5
    return 3e-5 + 3e-6 * beta(mcs, table) / sinr


# ------------------------------------------------------------------------------------------ slot
def project(owner, power, mask, budget):
    power = np.where(np.isfinite(power) & (power >= 1e-30), power, 0.0).astype(np.float64)
    bad_power, bad_owner = [], []
    for cell, row in enumerate(owner):
        given = action_power_is_bad(row, power[cell], mask[cell])
        bad_owner.append(int(np.sum(given)))
        power[cell] = np.where(given | (row == -1), 0.0, power[cell])
    total = power.sum(-1, keepdims=True)
    scaled = power * np.minimum(1.0, budget / np.maximum(total, 1e-300))
    return np.where(scaled > 0, owner, -1), scaled, bad_power, np.array(bad_owner), total[:, 0]


def action_power_is_bad(owner, power, mask):
    users = len(mask)
    exists = (owner >= 0) & (owner < users)
    allowed = exists & mask[np.clip(owner, 0, users - 1)]
    return (owner != -1) & (power > 0) & ~allowed


def interference(gains, radiated):
    cells = range(len(radiated))
    return np.stack(
        [sum((gains[c, :, k] * radiated[k] for k in cells if k != c), np.zeros(gains.shape[1::2]))
         for c in cells]
    )  # fmt: skip


def cqi_levels(table, fidelity):
    """Thresholds in dB of CQI 1..15 and the SINR in dB at which 0..15 are read."""
    limits = phy.cqi_thresholds_db(table, fidelity).astype(np.float64)
    ends = [2 * limits[0] - limits[1], *limits, 2 * limits[-1] - limits[-2]]
    return limits, (np.array(ends[:-1]) + np.array(ends[1:])) / 2


def measure(gains, radiated, mask, case):
    """CSI in dB per cell, user and subband, and where a CQI could be one step off."""
    config = case.config
    own = np.stack([gains[c, :, c] for c in range(config.num_cells)])
    sinr = case.budget / config.num_prbs * own / (case.noise + interference(gains, radiated))
    if config.csi == "perfect":
        csi = np.clip(10 * np.log10(sinr), -40, 60)
        doubt = np.zeros(csi.shape, bool)
    else:
        groups = np.arange(config.num_prbs) // config.subband_prbs
        flat = np.stack(
            [2 ** np.log2(1 + sinr[..., groups == s]).mean(-1) - 1 for s in range(groups[-1] + 1)],
            axis=-1,
        )
        limits, levels = cqi_levels(
            config.mcs_table, "shannon" if config.fidelity == "shannon" else "nr"
        )
        flat_db = 10 * np.log10(flat)
        csi = levels[np.sum(flat_db[..., None] >= limits, axis=-1)]
        doubt = np.abs(flat_db[..., None] - limits).min(-1) < 3e-5 + 5e-6 / flat
    absent = ~mask[..., None]
    return np.where(absent, -40.0, csi), doubt & ~absent


def air(owner, power, gains, case):
    """Disturbance at every user, and SINR of every PRB at its owner."""
    disturbance = interference(gains, power)
    sinr = np.zeros(owner.shape)
    for c, n in zip(*np.nonzero(owner >= 0), strict=True):
        u = owner[c, n]
        sinr[c, n] = power[c, n] * gains[c, u, c, n] / (case.noise + disturbance[c, u, n])
    return sinr


def blank(shape):
    integer, real = np.zeros(shape, int), np.zeros(shape)
    return SimpleNamespace(
        attempt=integer.copy(), num_prbs=integer.copy(), mcs=integer - 1, block_bits=real.copy(),
        sinr_eff=real.copy(), error_low=real.copy(), error_high=real.copy(),
        decoded=integer - 1, acked_bits=real.copy(), feedback=integer - 1,
        first_feedback=integer - 1, dropped=np.zeros(shape, bool), doubt=np.zeros(shape, bool),
        mcs_doubt=np.zeros(shape, bool),
    )  # fmt: skip


def transmit_shannon(state, owner, power, gains, uniforms, case):
    out = blank(state.mask.shape)
    sinr = air(owner, power, gains, case)
    orders, rates = mcs_arrays(case.config.mcs_table)
    cap = float(np.max(orders * rates))
    for c, u in np.ndindex(state.mask.shape):
        mine = owner[c] == u
        if mine.any():
            rate = np.minimum(np.log2(1 + sinr[c, mine]), cap)
            out.attempt[c, u] = out.decoded[c, u] = 1
            out.feedback[c, u] = 1  # and nothing for the outer loop: there are no errors
            out.num_prbs[c, u] = mine.sum()
            out.block_bits[c, u] = out.acked_bits[c, u] = case.config.res_per_prb * rate.sum()
            out.sinr_eff[c, u] = 2 ** rate.mean() - 1
    return out, owner, power, None


def transmit_sionna(state, owner, power, gains, uniforms, case):
    out = blank(state.mask.shape)
    sinr = air(owner, power, gains, case)
    table = case.config.mcs_table
    for c, u in np.ndindex(state.mask.shape):
        mine = owner[c] == u
        if not mine.any():
            continue
        num_re = int(mine.sum()) * case.config.res_per_prb
        believed = 10 ** ((state.sinr_eff_db[c, u] - state.olla_offset_db[c, u]) / 10)
        adapt(out, (c, u), lambda m, s=believed: s, num_re, case)
        mcs = out.mcs[c, u]
        seen = effective(sinr[c, mine], mcs, table)
        out.attempt[c, u], out.num_prbs[c, u], out.sinr_eff[c, u] = 1, mine.sum(), seen
        failed = decode(out, (c, u), seen, num_re, uniforms[c, u], case)
        out.feedback[c, u] = out.first_feedback[c, u] = out.decoded[c, u]
        out.dropped[c, u] = failed
        out.acked_bits[c, u] = 0 if failed else out.block_bits[c, u]
    return out, owner, power, None


def adapt(out, at, sinr_of, num_re, case):
    config = case.config

    def choose(sign):
        def shifted(m):
            sinr = sinr_of(m)
            return sinr * (1 + sign * margin(sinr, m, config.mcs_table, config.fidelity))

        return select(shifted, num_re, case.target, config.mcs_table, config.fidelity)

    out.mcs[at] = choose(0)
    if choose(-1) != choose(1):
        out.mcs_doubt[at] = out.doubt[at] = True


def decode(out, at, sinr, num_re, uniform, case):
    config, mcs = case.config, int(out.mcs[at])
    slack = margin(sinr, mcs, config.mcs_table, config.fidelity)

    def rate(sign):
        shifted = sinr * (1 + sign * slack)
        return error_rate(mcs, num_re, shifted, config.mcs_table, config.fidelity)

    out.block_bits[at] = transport_block(mcs, num_re, config.mcs_table)[0]
    out.error_low[at], out.error_high[at] = rate(1) - 1e-6, rate(-1) + 1e-6
    out.doubt[at] |= out.error_low[at] <= uniform < out.error_high[at]
    failed = uniform < rate(0)
    out.decoded[at] = 0 if failed else 1
    return failed


def transmit_nr(state, owner, power, gains, uniforms, case):
    config, table, slot = case.config, case.config.mcs_table, state.time
    out = blank(state.mask.shape)
    owner, power = owner.copy(), power.copy()
    harq = {name: value.copy() for name, value in state.harq.items()}
    sending = {}
    for c, u in np.ndindex(state.mask.shape):
        count = int(np.sum(owner[c] == u))
        if not count:
            continue
        held = {name: value[c, u] for name, value in harq.items()}
        waiting = (held["attempts"] > 0) & held["failed"] & (held["due"] <= slot)
        oldest = int(np.argmin(np.where(waiting, held["due"], 10**9)))
        free = np.flatnonzero(held["attempts"] == 0)
        if waiting.any() and held["num_prbs"][oldest] == count:
            sending[c, u] = oldest
        elif len(free):
            sending[c, u] = int(free[0])
        else:
            dark = owner[c] == u
            owner[c, dark], power[c, dark] = -1, 0.0
    sinr = air(owner, power, gains, case)
    reference = case.budget / config.num_prbs
    groups = np.arange(config.num_prbs) // (1 if config.csi == "perfect" else config.subband_prbs)
    for at, process in sending.items():
        c, u = at
        mine = owner[c] == u
        num_re = int(mine.sum()) * config.res_per_prb
        attempt = int(harq["attempts"][c, u, process]) + 1
        out.attempt[at], out.num_prbs[at] = attempt, mine.sum()
        if attempt == 1:
            reported = 10 ** (state.csi_db[c, u][groups[mine]] / 10)
            predicted = reported * power[c, mine] / reference
            offset = 10 ** (-state.olla_offset_db[at] / 10)
            adapt(
                out, at, lambda m, p=predicted, o=offset: effective(p, m, table) * o, num_re, case
            )
            evidence, uniform = 0.0, uniforms[at]
        else:
            out.mcs[at] = harq["mcs"][c, u, process]
            evidence, uniform = (harq[name][c, u, process] for name in ("evidence", "uniform"))
        mcs = int(out.mcs[at])
        seen = out.sinr_eff[at] = effective(sinr[c, mine], mcs, table)
        if config.combining == "chase":
            evidence = combined = evidence + seen
        else:
            b = beta(mcs, table)
            evidence = ((attempt - 1) * evidence + np.exp(-seen / b)) / attempt
            orders, rates = mcs_arrays(table)
            efficiency = float(orders[mcs]) * float(rates[mcs])
            gap = (2**efficiency - 1) / (2 ** (efficiency / attempt) - 1)
            combined = (seen if attempt == 1 else -b * np.log(evidence)) * gap
        failed = decode(out, at, combined, num_re, uniform, case)
        new = {
            "attempts": attempt, "due": slot + config.feedback_delay, "failed": failed,
            "mcs": mcs, "num_prbs": mine.sum(), "evidence": evidence, "uniform": uniform,
        }  # fmt: skip
        for name, value in new.items():
            harq[name][c, u, process] = value
    for c, u, p in np.ndindex(harq["attempts"].shape):
        attempts = harq["attempts"][c, u, p]
        if attempts and harq["due"][c, u, p] == slot + 1:
            failed = bool(harq["failed"][c, u, p])
            out.feedback[c, u] = 0 if failed else 1
            out.first_feedback[c, u] = out.feedback[c, u] if attempts == 1 else -1
            if not failed:
                num_re = int(harq["num_prbs"][c, u, p]) * config.res_per_prb
                out.acked_bits[c, u] = transport_block(int(harq["mcs"][c, u, p]), num_re, table)[0]
            out.dropped[c, u] = failed and attempts >= config.max_transmissions
            if not failed or out.dropped[c, u]:
                harq["attempts"][c, u, p] = 0
    return out, owner, power, harq


TRANSMIT = {"shannon": transmit_shannon, "sionna": transmit_sionna, "nr": transmit_nr}


def reward_of(before, after, mask, out, error_rate, case):
    config = case.config
    orders, rates = mcs_arrays(config.mcs_table)
    peak = config.num_prbs * config.res_per_prb * float(np.max(orders * rates))
    if config.reward == "alpha_fair":
        a, share = case.alpha, peak / config.num_users

        def utility(x):
            return np.log(x / share) if a == 1 else ((x / share) ** (1 - a) - 1) / (1 - a)

        return np.mean(utility(after[mask]) - utility(before[mask]))
    if config.reward == "weighted_rate":
        bits = np.where(out.decoded == 1, out.block_bits, 0.0)
        bits = np.where(out.attempt == 1, (1 - error_rate) * out.block_bits, bits)
        mean = before[mask].mean()
        jain = mean**2 / np.mean(before[mask] ** 2)
        weights = case.throughput_weight * (mean / before[mask]) ** case.alpha
        weights += case.fairness_weight * 2 * jain * (1 - jain * before[mask] / mean)
        return np.sum(weights * bits[mask]) / (config.num_cells * peak)
    jain = after[mask].sum() ** 2 / (mask.sum() * np.sum(after[mask] ** 2))
    cells = [after[c][mask[c]].sum() / peak for c in range(config.num_cells)]
    return case.throughput_weight * np.mean(cells) + case.fairness_weight * jain


# ----------------------------------------------------------------------------------- environment
CASES = {
    "nr-chase-1": {"combining": "chase", "harq_processes": 3, "cqi_delay": 3},
    "nr-incremental-1": {"combining": "incremental", "mcs_table": 2, "subband_prbs": 5},
    "nr-chase-3": {
        "mcs_table": 2,
        "csi": "perfect",
        "min_users": 2,
        "feedback_delay": 1,
        "reward": "weighted_rate",
    },
    "nr-incremental-3": {
        "combining": "incremental",
        "reward": "alpha_fair",
        "fairness_alpha": 0.7,
        "cqi_period": 3,
        "cqi_delay": 7,
    },
    "sionna-1": {"mcs_table": 2, "reward": "weighted_rate", "fairness_alpha": 0.7},
    "sionna-3": {"min_users": 2, "csi": "perfect"},
    "shannon-1": {"reward": "alpha_fair", "subband_prbs": 5},
    "shannon-3": {"min_users": 1, "cqi_period": 2, "cqi_delay": 1},
}


def random_actions(rng, cells, users, prbs, budget):
    """Half feasible, half with NaN, negative, oversized and homeless powers."""
    shape = (SLOTS + 1, cells, prbs)
    # few PRBs a user, so that now and then a grant has just the size a retransmission waits for
    owner = rng.integers(-1, users, shape)
    power = budget / prbs * rng.uniform(0.2, 1.0, shape).astype(np.float32)
    spoilt = (np.arange(SLOTS + 1) % 2 == 1)[:, None, None]
    kind = np.where(spoilt, rng.integers(0, 20, shape), 99)
    power = np.select(
        [kind == 0, kind == 1, kind == 2, kind == 3, kind == 4],
        [np.nan, -power, np.inf, 9 * power, 0.0],
        power,
    ).astype(np.float32)
    owner = np.where(kind == 5, users + 2, np.where(kind == 6, -3, owner))
    return Allocation(jnp.asarray(owner, jnp.int32), jnp.asarray(power))


def rollout(env, params):
    scheduler = mac.round_robin()

    @jax.jit
    def run(key, actions, params):
        observation, state = env.reset_env(key, params)

        def slot(carry, action):
            observation, state, memory = carry
            dealt, memory = scheduler.apply(key, observation, memory, params)
            action = jax.tree.map(lambda a, b: jnp.where(state.time % 4 < 2, a, b), action, dealt)
            # unequal powers, so that link adaptation has something to predict
            swing = 1.0 + 0.9 * jnp.cos(jnp.arange(action.power.shape[-1]) + state.time)
            action = action.replace(power=action.power * swing)
            after = env.step_env(key, state, action, params)
            record = (state, action, after[:3], after[4], block_uniforms(state),
                      params.channel.gains(state.drop, state.time))  # fmt: skip
            return (after[0], after[1], memory), record

        return jax.lax.scan(slot, (observation, state, scheduler.init(params)), actions)[1]

    return run


def as_numpy(state):
    values = {
        name: np.asarray(value, np.float64 if value.dtype == jnp.float32 else None)
        for name, value in vars(state).items()
        if name not in ("key", "drop", "harq")
    }
    harq = {
        name: np.asarray(value, np.float64 if value.dtype == jnp.float32 else None)
        for name, value in vars(state.harq).items()
    }
    return SimpleNamespace(**values, harq=harq)


def close(name, ours, truth, where, rtol=1e-4, atol=1e-5):
    where = np.broadcast_to(where, np.shape(truth))
    np.testing.assert_allclose(
        np.asarray(ours)[where], np.asarray(truth)[where], rtol=rtol, atol=atol, err_msg=name
    )


@pytest.mark.parametrize("name", CASES)
def test_slots_match_the_reference(name, record_property):
    fidelity, *_, cells = name.split("-")
    options = {"bler_target": 0.3, "doppler_hz": np.float32(60.0), **CASES[name]}
    env, params = jaxrl5g.make(
        "TinyDownlink-v0", fidelity=fidelity, num_cells=int(cells), **options
    )
    config = params.config
    case = SimpleNamespace(
        config=config,
        budget=float(params.power_budget),
        noise=float(params.noise_power),
        target=float(params.bler_target),
        alpha=options.get("fairness_alpha", 1),
        throughput_weight=float(params.throughput_weight),
        fairness_weight=float(params.fairness_weight),
    )
    rng = np.random.default_rng(3)
    actions = random_actions(rng, config.num_cells, config.num_users, config.num_prbs, case.budget)
    states, actions, (observations, following, rewards), infos, uniforms, gains = jax.device_get(
        rollout(env, params)(jax.random.key(5), actions, params)
    )
    pick = lambda tree, t: jax.tree.map(lambda leaf: leaf[t], tree)  # noqa: E731
    reports, users_seen, doubtful = {}, 0, 0

    start = as_numpy(pick(states, 0))
    idle = np.full((config.num_cells, config.num_prbs), case.budget / config.num_prbs)
    csi, csi_doubt = measure(gains[0].astype(np.float64), idle, start.mask, case)
    close("csi at reset", start.csi_db, csi, ~csi_doubt)

    for t in range(SLOTS):
        state, after, info = (pick(tree, t) for tree in (states, following, infos))
        state, after = as_numpy(state), as_numpy(after)
        mask, now = state.mask, gains[t].astype(np.float64)
        action = pick(actions, t)
        owner, power, _, bad_owner, total = project(
            np.asarray(action.owner), np.asarray(action.power), mask, case.budget
        )
        out, owner, power, harq = TRANSMIT[fidelity](
            state, owner, power, now, uniforms[t].astype(np.float64), case
        )
        clear = np.abs(total / case.budget - 1) > 1e-4
        np.testing.assert_array_equal(info["over_budget"][clear], (total > case.budget)[clear])
        np.testing.assert_array_equal(info["bad_owner"], bad_owner)
        unsound = ~np.isfinite(action.power) | (action.power < 0)
        np.testing.assert_array_equal(info["bad_power"], unsound.sum(-1))
        np.testing.assert_array_equal(info["owner"], owner)
        close("radiated", info["radiated"], power, True, atol=1e-12)

        users_seen += int(np.sum(out.attempt > 0))
        doubtful += int(np.sum(out.doubt))
        sure, same_mcs = ~out.doubt, ~out.mcs_doubt
        np.testing.assert_array_equal(info["attempt"], out.attempt)
        np.testing.assert_array_equal(info["num_prbs"], out.num_prbs)
        if fidelity != "shannon":
            np.testing.assert_array_equal(info["mcs"][same_mcs], out.mcs[same_mcs])
            np.testing.assert_array_equal(info["block_bits"][same_mcs], out.block_bits[same_mcs])
            sent = (out.attempt > 0) & same_mcs
            assert (info["error_rate"][sent] >= out.error_low[sent]).all()
            assert (info["error_rate"][sent] <= out.error_high[sent]).all()
        else:
            close("block_bits", info["block_bits"], out.block_bits, True)
        close("sinr_eff", info["sinr_eff"], out.sinr_eff, same_mcs)
        for field in ("decoded", "feedback", "first_feedback", "dropped"):
            np.testing.assert_array_equal(
                info[field][sure], getattr(out, field)[sure], err_msg=field
            )
        close("acked_bits", info["acked_bits"], out.acked_bits, sure)
        if harq is not None:
            for field, value in harq.items():
                close(field, after.harq[field], value, sure[..., None])

        step = case.target / (1 - case.target)
        change = np.select([out.first_feedback == 0, out.first_feedback == 1], [1.0, -step], 0.0)
        offset = np.clip(state.olla_offset_db + change, -20, 20)
        close("olla", after.olla_offset_db, offset, sure)
        mean = state.throughput + (out.acked_bits - state.throughput) / 100
        mean = np.where(mask, mean, 0.0)
        close("throughput", after.throughput, mean, sure)
        if sure.all():
            # the error rate was found within its bounds above
            truth = reward_of(state.throughput, mean, mask, out, info["error_rate"], case)
            np.testing.assert_allclose(rewards[t], truth, rtol=1e-4, atol=3e-6)
        served_db = np.where(
            out.sinr_eff > 0, 10 * np.log10(np.maximum(out.sinr_eff, 1e-9)), state.sinr_eff_db
        )
        close("sinr_eff_db", after.sinr_eff_db, served_db, same_mcs, atol=1e-3)

        if config.csi == "perfect":
            csi, csi_doubt = measure(gains[t + 1].astype(np.float64), power, mask, case)
        else:
            reports[t] = measure(now, power, mask, case)
            sent = t + 1 - config.cqi_delay
            if sent >= 0 and sent % config.cqi_period == 0:
                csi, csi_doubt = reports[sent]
        close("csi_db", after.csi_db, csi, ~csi_doubt, atol=1e-3)

        seen = pick(observations, t)
        for field in ("csi_db", "olla_offset_db", "throughput", "acked_bits", "feedback", "mask"):
            np.testing.assert_array_equal(getattr(seen, field), getattr(after, field))
        if fidelity == "nr":
            held = after.harq
            np.testing.assert_array_equal(seen.harq_free, (held["attempts"] == 0).sum(-1))
            waiting = (held["attempts"] > 0) & held["failed"] & (held["due"] <= t + 1)
            due = np.where(waiting, held["due"], 10**9)
            oldest = np.take_along_axis(held["num_prbs"], due.argmin(-1)[..., None], -1)[..., 0]
            np.testing.assert_array_equal(seen.harq_prbs, np.where(waiting.any(-1), oldest, 0))
        assert int(after.time) == t + 1

    # the run met what it is meant to test
    record_property("near_thresholds", f"{doubtful} of {users_seen}")
    assert users_seen > 100
    assert doubtful <= 0.01 * users_seen
    assert np.asarray(infos["over_budget"]).any() and np.asarray(infos["bad_owner"]).any()
    if fidelity == "nr":
        assert (np.asarray(infos["attempt"]) >= 2).sum() >= 10
        assert (np.asarray(infos["decoded"]) == 0).sum() >= 10
