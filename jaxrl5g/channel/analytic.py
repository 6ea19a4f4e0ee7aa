"""What the analytic channels share: track numbering, keys, taps and their responses."""

import jax
import jax.numpy as jnp
import numpy as np

from .sampling import skip_taken


def resolve_tracks(tracks: jax.Array) -> jax.Array:
    """Number the -1 entries of int32[C, U] with the smallest numbers not pinned.

    An analytic channel has no pool: a track is only a number that its parameters are keyed by.
    """
    flat = jnp.asarray(tracks, jnp.int32).reshape(-1)
    free = flat < 0
    order = (jnp.cumsum(free) - free).astype(jnp.int32)
    return jnp.where(free, skip_taken(order, flat), flat).reshape(tracks.shape)


def track_keys(key: jax.Array, tracks: jax.Array) -> jax.Array:
    """One key per track, same shape as ``tracks``."""
    keys = jax.vmap(lambda track: jax.random.fold_in(key, track))(tracks.reshape(-1))
    return keys.reshape(tracks.shape)


def select_owners(gains: jax.Array, owner: jax.Array) -> jax.Array:
    """The entries of float32[C, U, C, N] at each PRB's ``owner`` int32[C, N]: [C, C, N]."""
    return jnp.take_along_axis(gains, owner[:, None, None, :], axis=1)[:, 0]


def arange_drops(num_cells: int, num_users: int, num_drops: int) -> np.ndarray:
    """Tracks 0..C*U-1 for every drop, int32[num_drops, C, U]: the key tells drops apart.

    Raises:
        ValueError: a size below 1.
    """
    if num_users < 1 or num_drops < 1:
        raise ValueError(
            f"num_users and num_drops must be at least 1, got {num_users} and {num_drops}."
        )
    one = np.arange(num_cells * num_users, dtype=np.int32).reshape(num_cells, num_users)
    return np.broadcast_to(one, (num_drops, *one.shape)).copy()


def uniform_mean_gains(uniform: jax.Array, cell: jax.Array, num_cells: int, low, high, isolation):
    """Mean power gain, linear, float32[num_cells] of one track served by ``cell`` int32[].

    ``uniform`` float32[] in [0, 1) becomes dB in [low, high) for the serving cell and
    ``isolation`` dB less for the others.
    """
    serving = low + (high - low) * uniform
    loss = jnp.where(jnp.arange(num_cells) == cell, 0.0, isolation)
    return 10 ** ((serving - loss) / 10)


def exponential_delays(num_taps: int) -> np.ndarray:
    """Delays float32[num_taps] of equal-power taps with unit rms spread, the first at 0.

    Quantiles of the exponential power delay profile, rescaled so that the discrete profile has
    the asked rms delay spread exactly.
    """
    if num_taps == 1:
        return np.zeros(1, np.float32)
    delays = -np.log1p(-(np.arange(num_taps) + 0.5) / num_taps)
    delays -= delays[0]
    return (delays / delays.std()).astype(np.float32)


def split_up(values: jax.Array, *shapes: tuple[int, ...]) -> list[jax.Array]:
    """Cut float32[n] into arrays of these shapes.

    One large draw cut up compiles and runs several times faster than a draw per parameter.
    """
    parts, first = [], 0
    for shape in shapes:
        size = int(np.prod(shape))
        parts.append(values[first : first + size].reshape(shape))
        first += size
    return parts


def sinusoids(offset: jax.Array, phase: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Arrival angles and phases [rad], float32[..., M], from uniforms in [0, 1).

    ``offset`` is [...], ``phase`` [..., M]. The M angles of one tap are evenly spaced: each is
    uniform, so that the ensemble has Clarke's J0 autocorrelation, with less spread than
    independent angles.
    """
    count = phase.shape[-1]
    angles = 2 * jnp.pi * (offset[..., None] + jnp.arange(count) / count)
    return angles, 2 * jnp.pi * phase


def sum_of_sinusoids(angles, phases, doppler_hz, seconds):
    """Unit-power complex tap gains at ``seconds`` as (real, imaginary), float32[...]."""
    turns = doppler_hz * seconds * jnp.cos(angles)
    # Whole turns are dropped before multiplying by 2 pi to keep float32 phases exact.
    argument = 2 * jnp.pi * (turns - jnp.round(turns)) + phases
    scale = 1 / np.sqrt(angles.shape[-1])
    return jnp.sum(jnp.cos(argument), -1) * scale, jnp.sum(jnp.sin(argument), -1) * scale


def prb_power(real, imag, delays_s, num_prbs: int, prb_bandwidth_hz) -> jax.Array:
    """Power |sum_l h_l exp(-j 2 pi f_n tau_l)|^2 at PRB centres, float32[..., num_prbs].

    Args:
        real: real part of the tap gains, float32[..., L].
        imag: their imaginary part, float32[..., L].
        delays_s: float32[..., L] or broadcastable [s].
        num_prbs: N.
        prb_bandwidth_hz: spacing of the PRB centres [Hz].
    """
    # n = fine * i + j: two short tables of phasors instead of N of them per tap.
    fine = int(np.ceil(np.sqrt(num_prbs)))
    coarse = -(-num_prbs // fine)
    cycles = delays_s * prb_bandwidth_hz
    first = -2 * jnp.pi * cycles[..., None] * jnp.arange(fine)
    second = -2 * jnp.pi * cycles[..., None] * (fine * jnp.arange(coarse) - (num_prbs - 1) / 2)
    h = jax.lax.complex(real, imag)[..., None] * jnp.exp(1j * second)
    response = jnp.einsum("...la,...lb->...ab", h, jnp.exp(1j * first))
    flat = response.reshape(*response.shape[:-2], coarse * fine)[..., :num_prbs]
    return jnp.real(flat) ** 2 + jnp.imag(flat) ** 2
