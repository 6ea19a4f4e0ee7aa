"""The two choices every PHY function shares: fidelity and MCS table."""

FIDELITIES = ("shannon", "sionna", "nr")
TABLES = (1, 2)


def check_fidelity(fidelity: str) -> None:
    """Raise `ValueError` unless `fidelity` is "shannon", "sionna" or "nr"."""
    if fidelity not in FIDELITIES:
        raise ValueError(f"fidelity must be one of {', '.join(FIDELITIES)}, but got {fidelity!r}.")


def check_table(table: int) -> None:
    """Raise `ValueError` unless `table` is 1 (64QAM) or 2 (256QAM)."""
    if table not in TABLES:
        raise ValueError(f"table must be 1 (64QAM) or 2 (256QAM), but got {table!r}.")
