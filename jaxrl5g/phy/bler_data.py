"""The shipped block error rates: measured curves as they stand in Sionna 2.2.0's JSON files."""

import functools
import pathlib
from typing import NamedTuple

import numpy as np

from jaxrl5g.phy.options import check_table

DATA_FILE = pathlib.Path(__file__).parent / "data" / "bler_tables.npz"


class BlerData(NamedTuple):
    """Measured block error rates of one MCS table on an AWGN channel (PDSCH, category 1).

    Attributes:
        mcs: int32[A], the MCS indices that were measured, consecutive.
        code_block_size: int32[5], bits.
        snr_db: float64[K], uniform knots.
        bler: float64[A, 5, K], 0 where no error was seen in about 3000 blocks.
    """

    mcs: np.ndarray
    code_block_size: np.ndarray
    snr_db: np.ndarray
    bler: np.ndarray


@functools.cache
def load_bler_data(table: int, path: pathlib.Path = DATA_FILE) -> BlerData:
    """Read one table of the data file.

    Raises:
        ValueError: unknown table.
        FileNotFoundError: the data file is missing.
    """
    check_table(table)
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing: build it with 'python -m jaxrl5g.phy.build_tables'."
        )
    with np.load(path, allow_pickle=False) as arrays:
        return BlerData(*(arrays[f"table{table}_{name}"] for name in BlerData._fields))
