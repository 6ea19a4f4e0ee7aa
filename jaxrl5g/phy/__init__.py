"""Physical layer: transport blocks, effective SINR, error model, link adaptation, CQI."""

from jaxrl5g.phy.cqi import (
    cqi_sinr_db,
    cqi_thresholds_db,
    predicted_rate,
    quantise_cqi,
    rate_steps,
)
from jaxrl5g.phy.effective_sinr import (
    candidate_effective_sinr,
    eesm_beta,
    effective_sinr,
    owner_effective_sinr,
)
from jaxrl5g.phy.error_model import (
    block_error_rate,
    incremental_redundancy_shift_db,
    transport_block_error_rate,
)
from jaxrl5g.phy.grants import Grants, grant_error_rate, grant_mcs, grants
from jaxrl5g.phy.link_adaptation import OFFSET_LIMIT_DB, outer_loop_update, select_mcs
from jaxrl5g.phy.lookup import to_linear
from jaxrl5g.phy.mcs import (
    max_spectral_efficiency,
    mcs_parameters,
    num_mcs,
    spectral_efficiency,
)
from jaxrl5g.phy.options import FIDELITIES
from jaxrl5g.phy.required_sinr import highest_mcs, required_sinr
from jaxrl5g.phy.transport_block import code_blocks, transport_block_size

__all__ = [
    "FIDELITIES",
    "Grants",
    "OFFSET_LIMIT_DB",
    "block_error_rate",
    "candidate_effective_sinr",
    "code_blocks",
    "cqi_sinr_db",
    "cqi_thresholds_db",
    "eesm_beta",
    "effective_sinr",
    "grant_error_rate",
    "grant_mcs",
    "grants",
    "highest_mcs",
    "incremental_redundancy_shift_db",
    "max_spectral_efficiency",
    "mcs_parameters",
    "num_mcs",
    "outer_loop_update",
    "owner_effective_sinr",
    "predicted_rate",
    "quantise_cqi",
    "rate_steps",
    "required_sinr",
    "select_mcs",
    "spectral_efficiency",
    "to_linear",
    "transport_block_error_rate",
    "transport_block_size",
]
