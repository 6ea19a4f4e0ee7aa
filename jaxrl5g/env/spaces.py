"""Spaces of the downlink environment."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from gymnax.environments import spaces

from jaxrl5g.env.csi import CSI_CEILING_DB, CSI_FLOOR_DB
from jaxrl5g.env.reward import peak_cell_rate
from jaxrl5g.env.types import DownlinkConfig
from jaxrl5g.mac import Allocation
from jaxrl5g.phy import OFFSET_LIMIT_DB


class IntegerBox(spaces.Box):
    """Integers from `low` to `high`, both included."""

    def __init__(self, low: int, high: int, shape: tuple[int, ...]):
        super().__init__(low, high, shape, jnp.int32)

    def sample(self, key: jax.Array) -> jax.Array:
        return jax.random.randint(key, self.shape, self.low, self.high + 1, jnp.int32)


class AllocationSpace(spaces.Dict):
    """`Allocation`s: an owner in -1..U-1 and a power in [0, P] watts for each PRB of each cell.

    Samples may exceed a cell's budget in sum; the environment scales them down.
    """

    def sample(self, key: jax.Array) -> Allocation:
        return Allocation(**super().sample(key))


def action_space(config: DownlinkConfig, power_budget: jax.Array | float) -> AllocationSpace:
    """Actions; `power_budget` in watts bounds the power of one PRB."""
    shape = (config.num_cells, config.num_prbs)
    return AllocationSpace(
        {
            "owner": IntegerBox(-1, config.num_users - 1, shape),
            "power": spaces.Box(0.0, power_budget, shape),
        }
    )


def observation_space(config: DownlinkConfig) -> spaces.Dict:
    """`Observation`s; see there for units."""
    users = (config.num_cells, config.num_users)
    peak = peak_cell_rate(config)
    # a block can exceed N_info by the rounding of TS 38.214 5.1.3.2, by under 5 %
    bits = spaces.Box(0.0, 1.05 * peak, users)
    harq = config.harq_processes if config.fidelity == "nr" else 1
    space = spaces.Dict(
        {
            "csi_db": spaces.Box(CSI_FLOOR_DB, CSI_CEILING_DB, (*users, config.num_subbands)),
            "olla_offset_db": spaces.Box(-OFFSET_LIMIT_DB, OFFSET_LIMIT_DB, users),
            "throughput": bits,
            "acked_bits": bits,
            "feedback": IntegerBox(-1, 1, users),
            "harq_prbs": IntegerBox(0, config.num_prbs, users),
            "harq_free": IntegerBox(0, harq, users),
            "mask": spaces.Box(0, 1, users, jnp.bool_),
        }
    )
    if config.csi == "centralised":
        shape = (*users, config.num_cells, config.num_prbs)
        space.spaces["cross_snr"] = spaces.Box(0.0, float(jnp.finfo(jnp.float32).max), shape)
    return space
