"""`list`: environments, channel caches, schedulers and experiments."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from experiments.configs import config_names, load_config
from experiments.schedulers import numbers_of, takes_power
from jaxrl5g import channel
from jaxrl5g.env import DownlinkConfig, registered, spec
from jaxrl5g.mac import POWER_RULES, SCHEDULERS


@dataclass(frozen=True)
class List:
    """List environments, channel caches, schedulers and experiments.

    Example:
      python -m experiments list
    """


def run(options: List) -> None:
    """Print the four tables."""
    del options
    console = Console() if Console().is_terminal else Console(width=110)
    for table in (_environments(), _caches(), _schedulers(), _experiments()):
        console.print(table)


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(escape(column))
    return table


def _environments() -> Table:
    table = _table("environments", "id", "cells", "users", "PRBs", "splits", "what it is")
    for name in registered():
        found = spec(name)
        config = DownlinkConfig(**found.config)
        sizes = (str(size) for size in (config.num_cells, config.num_users, config.num_prbs))
        table.add_row(name, *sizes, ", ".join(found.caches or ()) or "-", found.description)
    return table


def _caches() -> Table:
    columns = ("name", "scene", "cells", "tracks", "slots", "PRBs", "speed [m/s]", "size [MB]")
    table = _table("channel caches", *columns)
    for name in channel.shipped_names():
        cache = channel.shipped(name)
        header: dict[str, Any] = dict(cache.header)
        traced = header.get("config", {})
        speeds = traced.get("speeds_m_s", ())
        table.add_row(
            name,
            str(traced.get("scene", "?")),
            str(cache.num_cells),
            str(cache.num_tracks),
            str(cache.num_slots),
            str(cache.num_prbs),
            ", ".join(f"{speed:g}" for speed in speeds) or "?",
            f"{cache.gains.nbytes / 1e6:.1f}",
        )
    return table


def _schedulers() -> Table:
    table = _table("schedulers", "name", "numbers after colons", "+power", "what it does")
    for name, make in SCHEDULERS.items():
        numbers = []
        for option in numbers_of(make):
            default = "" if option.default is option.empty else f" {option.default}"
            numbers.append(option.name + default)
        about = (make.__doc__ or "").strip().splitlines()[0]
        table.add_row(name, ", ".join(numbers) or "-", "yes" if takes_power(make) else "-", about)
    table.caption = f"power rules after a plus, as in pf:50+knapsack: {', '.join(POWER_RULES)}"
    return table


def _experiments() -> Table:
    table = _table("experiments", "name", "run it with", "what it is")
    for name in config_names():
        found = load_config(name)
        how = name if found.experiment else f"--config {name}"
        command = f"python -m experiments {found.command} {how}"
        table.add_row(name, command, found.description)
    return table
