"""The downlink environment, its registry, adapters and conformance test."""

from jaxrl5g.env.conformance import check_env
from jaxrl5g.env.downlink import DownlinkEnv
from jaxrl5g.env.flat_action import FlatActionWrapper, feature_names
from jaxrl5g.env.gymnasium import GymnasiumDownlink, GymnasiumVectorDownlink
from jaxrl5g.env.link import Outcome
from jaxrl5g.env.projection import Projection, project
from jaxrl5g.env.registry import EnvSpec, make, make_params, registered, spec
from jaxrl5g.env.reward import jain_index, peak_cell_rate
from jaxrl5g.env.types import DownlinkConfig, DownlinkParams, DownlinkState
from jaxrl5g.env.uniforms import block_uniforms

__all__ = [
    "DownlinkConfig",
    "DownlinkEnv",
    "DownlinkParams",
    "DownlinkState",
    "EnvSpec",
    "FlatActionWrapper",
    "GymnasiumDownlink",
    "GymnasiumVectorDownlink",
    "Outcome",
    "Projection",
    "block_uniforms",
    "check_env",
    "feature_names",
    "jain_index",
    "make",
    "make_params",
    "peak_cell_rate",
    "project",
    "registered",
    "spec",
]
