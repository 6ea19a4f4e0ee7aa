"""Options of `trace`, and the documented commands behind the shipped caches."""

import dataclasses
import json
import re
import shlex
import struct
from importlib import resources
from pathlib import Path

import pytest
import tyro

from experiments.trace import Trace, config_of
from jaxrl5g.channel import TraceConfig, shipped_names

DOCUMENT = Path(__file__).parents[2] / "docs" / "channel-cache.md"
COMMAND = re.compile(r"^python -m experiments trace (.*)$", re.MULTILINE)


def options(arguments):
    return tyro.cli(Trace, args=shlex.split(arguments))


def packed_header(name):
    """Provenance of a shipped cache, without unpacking its gains."""
    data = (resources.files("jaxrl5g.channel") / "data" / f"{name}.jxz").read_bytes()
    body = data[struct.calcsize("<8sIIQ32s") :]
    return json.loads(body[8 : 8 + int.from_bytes(body[:8], "little")])["provenance"]


def test_defaults_are_the_tracers():
    assert config_of(options("--out x")) == TraceConfig()


def test_every_option_reaches_the_configuration():
    config = config_of(
        options(
            "--out x --scene etoile --cells 3 --tracks 12 --slots 7 --speed 1,20 "
            "--motion waypoint --seed 5 --prbs 9 --scs-khz 15 --carrier-ghz 2 --samples 1000 "
            "--depth 2 --radius 50 --coefficients --receivers-per-solve 16 --max-paths 3000 "
            "--table-size 40000"
        )
    )
    assert config == TraceConfig(
        scene="etoile",
        cells=3,
        tracks=12,
        slots=7,
        speeds_m_s=(1.0, 20.0),
        motion="waypoint",
        seed=5,
        num_prbs=9,
        scs_hz=15e3,
        carrier_hz=2e9,
        samples=1000,
        max_depth=2,
        radius_m=50.0,
        coefficients=True,
        receivers_per_solve=16,
        max_paths=3000,
        table_size=40000,
    )


def test_without_a_radius_the_presets_is_taken():
    def radius(arguments):
        return config_of(options(arguments)).with_presets().radius_m

    assert radius("--out x --tracks 3 --cells 3") == 200.0
    assert radius("--out x") == 300.0
    assert radius("--out x --tracks 3 --cells 3 --radius 250") == 250.0


@pytest.mark.parametrize("name", shipped_names())
def test_the_documented_command_made_the_shipped_cache(name):
    commands = [options(line) for line in COMMAND.findall(DOCUMENT.read_text())]
    (command,) = [trace for trace in commands if trace.out.name == f"{name}.channel"]
    config = dataclasses.asdict(config_of(command).with_presets())
    assert json.loads(json.dumps(config)) == packed_header(name)["config"]
