"""The hierarchical two-agent controller: PRBs, then power."""

from jaxrl5g.agents.controller import ControllerConfig, Memory, controller, deciding
from jaxrl5g.agents.decisions import PARAMETRISATIONS
from jaxrl5g.agents.features import feature_names
from jaxrl5g.agents.marl_view import DownlinkTurns
from jaxrl5g.agents.saved import load_config, load_controller, save_controller
from jaxrl5g.agents.task import downlink_task

__all__ = [
    "ControllerConfig",
    "DownlinkTurns",
    "Memory",
    "PARAMETRISATIONS",
    "controller",
    "deciding",
    "downlink_task",
    "feature_names",
    "load_config",
    "load_controller",
    "save_controller",
]
