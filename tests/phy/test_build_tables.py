"""The table builder: round trip from JSON, and the shipped file."""

import json

import numpy as np
import pytest

from jaxrl5g.phy import bler_data, build_tables


def fake_folder(path, spoil=False):
    """Two tiny JSON files in the wheel's layout."""
    rng = np.random.default_rng(0)
    for table in (1, 2):
        curves = {
            str(mcs): {
                "SNR_db": [-5.0, 0.0, 5.0 + (spoil and mcs == 4)],
                "CBS": {str(size): {"BLER": rng.random(3).tolist()} for size in (24, 100)},
            }
            for mcs in (3, 4)
        }
        content = {"category": {"1": {"index": {str(table): {"MCS": curves}}}}}
        (path / f"PDSCH_table{table}.json").write_text(json.dumps(content))
    return path


def test_round_trip(tmp_path):
    folder = fake_folder(tmp_path)
    build_tables.build(tmp_path / "out" / "tables.npz", folder)
    for table in (1, 2):
        built = bler_data.load_bler_data(table, tmp_path / "out" / "tables.npz")
        read = build_tables.read_table(folder / f"PDSCH_table{table}.json", table)
        for ours, theirs in zip(built, read, strict=True):
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs)
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["tables.npz"]


def test_uneven_grid_is_refused(tmp_path):
    folder = fake_folder(tmp_path, spoil=True)
    with pytest.raises(ValueError, match="MCS 4 is not on the grid"):
        build_tables.build(tmp_path / "tables.npz", folder)


def test_missing_file_names_the_builder(tmp_path):
    with pytest.raises(FileNotFoundError, match="jaxrl5g.phy.build_tables"):
        bler_data.load_bler_data(1, tmp_path / "absent.npz")


def test_missing_wheel_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install sionna"):
        build_tables.find_tables_folder()


def test_shipped_file():
    for table, knots, top_db in ((1, 15, 20.0), (2, 20, 25.0)):
        data = bler_data.load_bler_data(table)
        assert list(data.code_block_size) == [24, 100, 500, 1000, 2000]
        assert data.bler.shape == (26, 5, knots)
        assert (data.snr_db[0], data.snr_db[-1]) == (-5.0, top_db)
        np.testing.assert_allclose(np.diff(data.snr_db), np.diff(data.snr_db)[0])
        assert np.all(np.diff(data.mcs) == 1)
        assert np.all((data.bler >= 0) & (data.bler <= 1))


@pytest.mark.sionna
def test_shipped_file_equals_the_installed_wheel(tmp_path):
    try:
        folder = build_tables.find_tables_folder()
    except FileNotFoundError as error:
        pytest.skip(str(error))
    build_tables.build(tmp_path / "tables.npz", folder)
    assert (tmp_path / "tables.npz").read_bytes() == bler_data.DATA_FILE.read_bytes()
