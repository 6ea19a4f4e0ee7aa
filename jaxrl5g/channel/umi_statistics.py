"""Closed forms of TR 38.901 (V17) for the UMi street canyon; distances in metres, losses in dB."""

import jax
import jax.numpy as jnp

Number = jax.Array | float

SPEED_OF_LIGHT_M_S = 299792458.0

_ENVIRONMENT_HEIGHT_M = 1.0  # h_E, table 7.4.1-1 note 1


def los_probability(distance_m):
    """Probability of line of sight at horizontal ``distance_m`` (table 7.4.2-1, outdoor)."""
    distance = jnp.maximum(distance_m, 18.0)
    near = 18.0 / distance
    return near + jnp.exp(-distance / 36.0) * (1 - near)


def breakpoint_distance_m(carrier_hz, site_height_m: Number = 10.0, user_height_m: Number = 1.5):
    """d'_BP [m] of table 7.4.1-1, note 1."""
    heights = (site_height_m - _ENVIRONMENT_HEIGHT_M) * (user_height_m - _ENVIRONMENT_HEIGHT_M)
    return 4 * heights * (carrier_hz / SPEED_OF_LIGHT_M_S)


def path_loss_los_db(
    distance_m, carrier_hz, site_height_m: Number = 10.0, user_height_m: Number = 1.5
):
    """Line-of-sight path loss [dB] at horizontal ``distance_m`` in [10, 5000] (7.4.1-1)."""
    drop = site_height_m - user_height_m
    slant = jnp.sqrt(distance_m**2 + drop**2)
    corner = breakpoint_distance_m(carrier_hz, site_height_m, user_height_m)
    ghz = 20 * jnp.log10(carrier_hz / 1e9)
    near = 32.4 + 21 * jnp.log10(slant) + ghz
    far = 32.4 + 40 * jnp.log10(slant) + ghz - 9.5 * jnp.log10(corner**2 + drop**2)
    return jnp.where(distance_m <= corner, near, far)


def path_loss_nlos_db(
    distance_m, carrier_hz, site_height_m: Number = 10.0, user_height_m: Number = 1.5
):
    """Non-line-of-sight path loss [dB]; never below the line-of-sight one (7.4.1-1)."""
    slant = jnp.sqrt(distance_m**2 + (site_height_m - user_height_m) ** 2)
    loss = 35.3 * jnp.log10(slant) + 22.4 + 21.3 * jnp.log10(carrier_hz / 1e9)
    loss = loss - 0.3 * (user_height_m - 1.5)
    line = path_loss_los_db(distance_m, carrier_hz, site_height_m, user_height_m)
    return jnp.maximum(line, loss)


def shadowing_db(los):
    """Standard deviation of log-normal shadowing [dB] (7.4.1-1)."""
    return jnp.where(los, 4.0, 7.82)


def delay_spread_s(los, carrier_hz, normal):
    """Log-normal rms delay spread [s] from a standard normal draw (table 7.5-6, part 1)."""
    ghz = jnp.log10(1 + jnp.maximum(carrier_hz / 1e9, 2.0))
    mean = -0.24 * ghz - jnp.where(los, 7.14, 6.83)
    sigma = jnp.where(los, 0.38, 0.16 * ghz + 0.28)
    return 10 ** (mean + sigma * normal)


def rician_factor_db(normal):
    """Line-of-sight K factor [dB] from a standard normal draw: N(9, 5) (table 7.5-6)."""
    return 9.0 + 5.0 * normal
