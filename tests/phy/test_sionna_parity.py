"""The "sionna" fidelity against the installed Sionna SYS, double precision, category 1 (PDSCH)."""

import numpy as np
import pytest

from jaxrl5g import phy
from jaxrl5g.phy.sionna_curves import sionna_bler

pytestmark = pytest.mark.sionna
TABLES = (1, 2)
# float32 resolves a grid index to about this; only such look-ups may fall to either side
MIDPOINT = 3e-4


@pytest.fixture(scope="module")
def torch():
    pytest.importorskip("sionna.sys")
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def abstraction(torch):
    from sionna.sys import PHYAbstraction

    return PHYAbstraction(precision="double", device="cpu")


def near_midpoint(sinr):
    """Whether the SINR grid index lies within float rounding of a tie, in float64."""
    index = (10.0 * np.log10(sinr.astype(np.float64)) + 5.0) / 0.1
    return np.abs(index - np.floor(index) - 0.5) < MIDPOINT


def grids(table):
    """(num_re, linear float32 SINR) of the dense grid."""
    num_re = np.unique(np.r_[1, 5, 12, 60, 132 * np.arange(1, 52, 3), 132 * 51, 156 * 273])
    sinr = np.asarray(10.0 ** (np.arange(-9.0, 33.0, 0.037) / 10.0), np.float32)
    return num_re.astype(np.int32), sinr


@pytest.mark.parametrize("table", TABLES)
def test_interpolated_grid(abstraction, table):
    theirs = abstraction.bler_table_interp[1, table - 1].numpy()[: phy.num_mcs(table)]
    ours = sionna_bler(table)
    ours = np.concatenate([ours, np.repeat(ours[:, -1:], theirs.shape[1] - 21, axis=1)], axis=1)
    finite = np.isfinite(theirs)
    np.testing.assert_array_equal(np.isfinite(ours), finite)
    np.testing.assert_array_equal(ours[finite] == 0, theirs[finite] == 0)
    np.testing.assert_allclose(ours[finite], theirs[finite], atol=1e-7, rtol=0)


@pytest.mark.parametrize("table", TABLES)
def test_mcs_parameters(torch, table):
    from sionna.phy.nr.utils import decode_mcs_index

    index = np.arange(phy.num_mcs(table), dtype=np.int32)
    order, rate = decode_mcs_index(torch.tensor(index), table, is_pusch=False, device="cpu")
    ours = phy.mcs_parameters(index, table)
    np.testing.assert_array_equal(ours[0], order.numpy())
    np.testing.assert_array_equal(ours[1], rate.numpy())


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("layers", (1, 4))
def test_transport_block_size(torch, table, layers):
    from sionna.phy.nr.utils import calculate_tb_size

    num_re = np.unique(np.r_[np.arange(1, 3000), 132 * np.arange(1, 276), 12 * np.arange(1, 3577)])
    num_re = num_re.astype(np.int32)[:, None]
    order, rate = (np.asarray(x) for x in phy.mcs_parameters(np.arange(phy.num_mcs(table)), table))
    coded = torch.tensor(num_re * order * layers)
    theirs = calculate_tb_size(
        torch.tensor(order).expand(coded.shape),
        torch.tensor(rate).expand(coded.shape),
        num_coded_bits=coded,
        num_layers=layers,
        return_cw_length=False,
        device="cpu",
    )
    tbs = phy.transport_block_size(num_re, order, rate, layers, fidelity="sionna")
    size, blocks = phy.code_blocks(tbs, rate)
    for ours, other in zip((tbs, size, blocks), theirs[:3], strict=True):
        np.testing.assert_array_equal(ours, other.numpy())


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("spread_db", (0.0, 3.0, 12.0))
def test_effective_sinr(torch, table, spread_db):
    from sionna.sys import EESM

    rng = np.random.default_rng(int(spread_db) + table)
    num_ut, num_prb = phy.num_mcs(table), 51
    mean_db = rng.uniform(-35, 35, (200, num_ut, 1))
    sinr_db = mean_db + spread_db * rng.standard_normal((200, num_ut, num_prb))
    sinr = np.asarray(10.0 ** (sinr_db / 10.0), np.float32)
    allocated = rng.random(sinr.shape) < 0.4
    sinr = np.where(allocated, sinr, 0).astype(np.float32)
    mcs = np.arange(num_ut, dtype=np.int32)
    # [batch, symbols, subcarriers, users, streams]
    grid = torch.tensor(sinr.transpose(0, 2, 1)[:, None, :, :, None], dtype=torch.float64)
    eesm = EESM(precision="double", device="cpu")
    theirs = eesm(grid, torch.tensor(mcs).expand(200, num_ut), mcs_table_index=table).numpy()
    ours = np.asarray(phy.effective_sinr(sinr, allocated, mcs, table))
    np.testing.assert_array_equal(ours == 0, theirs == 0)
    # far below the smallest float64 exponential their sum underflows and reads the upper clamp
    used = (theirs > 0) & (np.where(allocated, sinr, np.inf).min(-1) < 700 * phy.eesm_beta(table))
    error_db = 10 * np.abs(np.log10(ours[used].astype(np.float64) / theirs[used]))
    print(f"effective SINR, table {table}, spread {spread_db}: max error {error_db.max():.2e} dB")
    assert error_db.max() <= 1e-4


@pytest.mark.parametrize("table", TABLES)
def test_transport_block_error_rate(abstraction, torch, table):
    num_re, sinr = grids(table)
    mcs = np.arange(phy.num_mcs(table), dtype=np.int32)
    shape = (len(mcs), len(num_re), len(sinr))
    grid = [np.broadcast_to(x, shape) for x in (mcs[:, None, None], num_re[:, None], sinr)]
    *_, theirs, _ = abstraction(
        torch.tensor(grid[0].copy()),
        sinr_eff=torch.tensor(grid[2].astype(np.float64)),
        num_allocated_re=torch.tensor(grid[1].copy()),
        mcs_table_index=table,
        mcs_category=1,
    )
    theirs = theirs.numpy()
    ours = np.asarray(phy.transport_block_error_rate(*grid, table, "sionna"))
    np.testing.assert_array_equal(np.isinf(ours), np.isinf(theirs))
    with np.errstate(invalid="ignore"):
        error = np.where(np.isinf(theirs), 0.0, np.abs(ours - theirs))
    midpoint = near_midpoint(grid[2])
    excused = (error > 1e-6) & midpoint
    print(
        f"TBLER, table {table}: {error.size} points, max error {error[~midpoint].max():.2e}, "
        f"{excused.sum()} of {midpoint.sum()} look-ups at a midpoint fell the other way"
    )
    assert error[~midpoint].max() <= 1e-6
    assert excused.sum() < 1e-3 * error.size


@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("target", (0.01, 0.1, 0.3))
def test_mcs_selection(abstraction, torch, table, target):
    from sionna.sys import InnerLoopLinkAdaptation

    loop = InnerLoopLinkAdaptation(
        abstraction, bler_target=target, precision="double", device="cpu"
    )
    num_re, sinr = grids(table)
    num_re = np.r_[0, num_re].astype(np.int32)
    shape = (len(num_re), len(sinr))
    grid = [np.broadcast_to(x, shape).copy() for x in (sinr, num_re[:, None])]
    theirs = loop(
        sinr_eff=torch.tensor(grid[0].astype(np.float64)),
        num_allocated_re=torch.tensor(grid[1]),
        mcs_table_index=table,
        mcs_category=1,
    ).numpy()
    ours = np.asarray(phy.select_mcs(*grid, target, table, "sionna"))
    differ = ours != theirs
    excused = differ & near_midpoint(grid[0])
    print(
        f"MCS, table {table}, target {target}: {differ.size} points, {excused.sum()} at a "
        f"midpoint, {(differ & ~excused).sum()} other differences"
    )
    assert not (differ & ~excused).any()


@pytest.mark.parametrize("table", TABLES)
def test_mcs_selection_from_per_resource_sinr(abstraction, torch, table):
    """Sionna evaluates EESM per candidate when it is given SINRs per resource."""
    from sionna.sys import InnerLoopLinkAdaptation

    loop = InnerLoopLinkAdaptation(abstraction, bler_target=0.1, precision="double", device="cpu")
    rng = np.random.default_rng(table)
    batch, num_ut, num_prb = 40, 8, 51
    db = rng.uniform(-3, 26, (batch, 1, num_ut)) + 4 * rng.standard_normal((batch, num_prb, num_ut))
    owner = rng.integers(-1, num_ut, (batch, num_prb)).astype(np.int32)
    mine = owner[..., None] == np.arange(num_ut)
    sinr = np.where(mine, 10.0 ** (db / 10.0), 0.0).astype(np.float32)
    # 12 subcarriers of equal SINR per PRB change nothing in EESM; 132 elements per PRB
    grid = torch.tensor(sinr, dtype=torch.float64)[:, None, :, :, None].expand(-1, 132, -1, -1, -1)
    theirs = loop(sinr=grid, mcs_table_index=table, mcs_category=1).numpy()
    effective = np.asarray(phy.candidate_effective_sinr(sinr.max(axis=-1), owner, num_ut, table))
    num_re = 132 * mine.sum(axis=1).astype(np.int32)
    ours = np.asarray(phy.select_mcs(effective, num_re, 0.1, table, "sionna"))
    differ = ours != theirs
    excused = differ & near_midpoint(np.maximum(effective, 1e-3)).any(axis=-1)
    print(f"MCS per candidate, table {table}: {excused.sum()} of {differ.size} at a midpoint")
    assert not (differ & ~excused).any()
