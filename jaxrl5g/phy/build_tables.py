"""Build the shipped BLER data from an installed `sionna` wheel.

Run as `python -m jaxrl5g.phy.build_tables [--out FILE]`. Only the wheel's JSON files are read:
neither sionna nor torch is imported.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import tempfile

import numpy as np

from jaxrl5g.phy.bler_data import DATA_FILE, BlerData
from jaxrl5g.phy.options import TABLES

_CATEGORY = "1"  # PDSCH; category 0 (PUSCH) has wrong rows


def find_tables_folder() -> pathlib.Path:
    """Folder of the BLER JSON files inside the installed `sionna` package.

    Raises:
        FileNotFoundError: `sionna` is not installed or does not hold the tables.
    """
    spec = importlib.util.find_spec("sionna")
    for location in (spec.submodule_search_locations or ()) if spec else ():
        folder = pathlib.Path(location) / "sys" / "bler_tables"
        if folder.is_dir():
            return folder
    raise FileNotFoundError(
        "No sionna package with sys/bler_tables was found: install it with 'pip install sionna'."
    )


def read_table(path: pathlib.Path, table: int) -> BlerData:
    """Read one of Sionna's PDSCH JSON files.

    Raises:
        ValueError: the file does not have one common grid for all its MCS.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    curves = content["category"][_CATEGORY]["index"][str(table)]["MCS"]
    mcs = sorted(int(key) for key in curves)
    first = curves[str(mcs[0])]
    sizes = [int(size) for size in first["CBS"]]
    for index in mcs:
        entry = curves[str(index)]
        if [int(size) for size in entry["CBS"]] != sizes or entry["SNR_db"] != first["SNR_db"]:
            raise ValueError(f"{path}: MCS {index} is not on the grid of MCS {mcs[0]}.")
    bler = [[curves[str(index)]["CBS"][str(size)]["BLER"] for size in sizes] for index in mcs]
    return BlerData(
        mcs=np.asarray(mcs, np.int32),
        code_block_size=np.asarray(sizes, np.int32),
        snr_db=np.asarray(first["SNR_db"], np.float64),
        bler=np.asarray(bler, np.float64),
    )


def build(out: pathlib.Path, folder: pathlib.Path | None = None) -> None:
    """Write both PDSCH tables to `out` (.npz, no pickle), atomically.

    Args:
        out: file to write.
        folder: where the JSON files lie; found in the installed wheel when left out.
    """
    folder = find_tables_folder() if folder is None else folder
    arrays: dict[str, np.ndarray] = {}
    for table in TABLES:
        data = read_table(folder / f"PDSCH_table{table}.json", table)
        arrays |= {f"table{table}_{name}": value for name, value in data._asdict().items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, suffix=".npz")
    os.close(handle)
    try:
        np.savez_compressed(temporary, **arrays)  # pyright: ignore[reportArgumentType]
        os.replace(temporary, out)
        out.chmod(0o644)
    except BaseException:
        pathlib.Path(temporary).unlink(missing_ok=True)
        raise


def main() -> None:
    """Command line entry."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=pathlib.Path, default=DATA_FILE)
    out = parser.parse_args().out
    build(out)
    version = importlib.metadata.version("sionna")
    print(f"wrote {out} ({out.stat().st_size} bytes) from sionna {version}")


if __name__ == "__main__":
    main()
