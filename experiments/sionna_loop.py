"""The closed loop of Sionna SYS: proportional fair, equal power, OLLA, PHY abstraction.

The rival in the benchmark and the reference in the parity tests. One frequency resource of the
scheduler is one physical resource block (PRB); a PRB's SINR is flat, so the effective SINR is
taken over PRBs and passed on with the number of resource elements, both documented inputs of
`sionna.sys.PHYAbstraction`. That gives the same numbers as repeating each PRB over its 132
resource elements (form "elements") at a fraction of the cost. Form "grid" schedules and maps the
14 OFDM symbols x PRBs that Sionna's own interfaces are shaped for, one resource element each.

Needs the `sionna` extra; torch and Sionna are imported when a loop is made.
"""

import functools
from typing import Any, NamedTuple

import numpy as np

RE_PER_PRB = 132
_SYMBOLS, _SUBCARRIERS = 11, 12  # 132 data resource elements of a PRB, for form "elements"
_GRID_SYMBOLS = 14
FORMS = ("effective", "grid", "elements")


class SlotRecord(NamedTuple):
    """What happened in each slot, and the state before its decision.

    Shapes: T slots, B batch, U users, N PRBs; [T, B, U] unless stated. An unserved user has
    `mcs` 0, `feedback` -1, `tbler` -1, `tbs` 0 and `sinr_eff` 0.
    """

    owner: np.ndarray  # [T, B, N] the user of each PRB
    num_prbs: np.ndarray  # PRBs granted
    mcs: np.ndarray
    tbs: np.ndarray  # transport block size, bits
    sinr_eff: np.ndarray  # effective SINR at `mcs`, linear
    tbler: np.ndarray  # transport block error rate
    feedback: np.ndarray  # 1 ACK, 0 NACK, -1 none
    bits: np.ndarray  # delivered bits
    achievable_rate: np.ndarray  # [T, B, N, U] log2(1 + SINR), what PF divides by its average
    average_before: np.ndarray  # PF's average before it takes in `bits_before`
    average: np.ndarray  # and after: the average the decision used
    offset_before: np.ndarray  # OLLA offset, dB, before it takes in `feedback_before`
    offset: np.ndarray  # and after: the offset the MCS choice used
    sinr_eff_db_before: np.ndarray  # OLLA's last effective SINR, dB, before `sinr_eff_before`
    sinr_eff_db: np.ndarray  # and after: the one the MCS choice used
    feedback_before: np.ndarray  # last slot's feedback
    sinr_eff_before: np.ndarray  # last slot's effective SINR, linear, 0 if unserved
    bits_before: np.ndarray  # last slot's delivered bits


@functools.cache
def _phy_abstraction(precision: Any) -> Any:
    """Sionna's PHY abstraction; interpolating its tables takes seconds, so loops share one."""
    from sionna.sys import PHYAbstraction

    return PHYAbstraction(precision=precision, device="cpu")


class SionnaLoop:
    """A batch of cells under Sionna's scheduler, link adaptation and PHY abstraction.

    Args:
        batch: cells run side by side, B.
        num_users: users per cell, U.
        num_prbs: PRBs, N.
        precision: "single" or "double"; use "double" to compare numbers.
        mcs_table: MCS table 1 (64QAM) or 2 (256QAM).
        beta: PF's forgetting factor, 1 - 1/window.
        bler_target: what OLLA steers to.
        form: what the PHY abstraction is given: "effective", the effective SINR over PRBs and the
            number of resource elements; "grid", SINRs per OFDM symbol and PRB; "elements", SINRs
            per resource element (slow, the same result as "effective").
        seed: of Sionna's own random numbers.
    """

    def __init__(
        self,
        batch: int,
        num_users: int = 16,
        num_prbs: int = 51,
        *,
        precision: Any = "single",
        mcs_table: int = 1,
        beta: float = 0.98,
        bler_target: float = 0.1,
        form: str = "effective",
        seed: int = 0,
    ):
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}, got {form!r}.")
        import torch
        from sionna.phy import config
        from sionna.phy.nr.utils import MCSDecoderNR, TransportBlockNR
        from sionna.sys import EESM, OuterLoopLinkAdaptation, PFSchedulerSUMIMO

        config.seed = seed
        self._torch = torch
        self.batch, self.num_users, self.num_prbs = batch, num_users, num_prbs
        self.dtype = torch.float64 if precision == "double" else torch.float32
        self._form = form
        self._symbols = _GRID_SYMBOLS if form == "grid" else 1
        self._mcs_table = mcs_table
        common = {"precision": precision, "device": "cpu"}
        self.scheduler = PFSchedulerSUMIMO(
            num_users, num_prbs, self._symbols, batch_size=batch, beta=beta, **common
        )
        self.phy = _phy_abstraction(precision)
        self.olla = OuterLoopLinkAdaptation(
            self.phy, num_users, bler_target=bler_target, batch_size=batch, **common
        )
        self.eesm = EESM(**common)
        self._decoder = MCSDecoderNR(**common)
        self._transport_block = TransportBlockNR(**common)
        shape = (batch, num_users)
        self.feedback = torch.full(shape, -1, dtype=torch.int32)
        self.sinr_eff = torch.zeros(shape, dtype=self.dtype)
        self.bits = torch.zeros(shape, dtype=torch.int32)

    def step(self, sinr: Any, uniform: Any = None) -> dict[str, Any]:
        """Run one slot.

        Args:
            sinr: [B, N, U] linear SINR of every user on every PRB at equal power.
            uniform: [B, U] in [0, 1); a block fails where it is below the TBLER. None lets
                Sionna draw.

        Returns:
            What was decided and delivered, as tensors.
        """
        torch = self._torch
        rate = torch.log2(1.0 + sinr)
        rates = rate.unsqueeze(-3).expand(-1, self._symbols, -1, -1)
        scheduled_grid = self.scheduler(self.bits, rates)[..., 0]  # [B, symbols, N, U]
        scheduled = scheduled_grid[:, 0]
        num_prbs = scheduled.sum(dim=-2).to(torch.int32)
        num_re = num_prbs * (_GRID_SYMBOLS if self._form == "grid" else RE_PER_PRB)
        mcs = self.olla(
            num_re, self.feedback, self.sinr_eff, mcs_table_index=self._mcs_table, mcs_category=1
        )
        granted = torch.where(scheduled, sinr, torch.zeros((), dtype=sinr.dtype))
        if self._form == "grid":
            granted = torch.where(
                scheduled_grid, sinr.unsqueeze(-3), torch.zeros((), dtype=sinr.dtype)
            )
            bits, feedback, sinr_eff, tbler, _ = self.phy(
                mcs, sinr=granted[..., None], mcs_table_index=self._mcs_table, mcs_category=1
            )
        elif self._form == "elements":
            grid = granted.repeat_interleave(_SUBCARRIERS, dim=-2)
            grid = grid[:, None, :, :, None].expand(-1, _SYMBOLS, -1, -1, -1)
            bits, feedback, sinr_eff, tbler, _ = self.phy(
                mcs, sinr=grid, mcs_table_index=self._mcs_table, mcs_category=1
            )
        else:
            sinr_eff = self.eesm(granted[:, None, :, :, None], mcs, mcs_table_index=self._mcs_table)
            bits, feedback, sinr_eff, tbler, _ = self.phy(
                mcs,
                sinr_eff=sinr_eff,
                num_allocated_re=num_re,
                mcs_table_index=self._mcs_table,
                mcs_category=1,
            )
        out = {"scheduled": scheduled, "num_prbs": num_prbs, "mcs": mcs, "tbler": tbler}
        if uniform is not None:
            out["tbs"] = self.transport_block_size(mcs, num_re)
            feedback = torch.where(uniform < tbler, 0, 1).to(torch.int32)
            feedback = torch.where(num_re > 0, feedback, -1).to(torch.int32)
            bits = torch.where(feedback == 1, out["tbs"], 0).to(torch.int32)
        self.feedback, self.sinr_eff, self.bits = feedback, sinr_eff, bits
        return out | {"feedback": feedback, "sinr_eff": sinr_eff, "bits": bits, "rate": rate}

    def transport_block_size(self, mcs: Any, num_re: Any) -> Any:
        """Return Sionna's transport block size, bits, 0 where nothing is granted."""
        order, code_rate = self._decoder(mcs, self._mcs_table, 1, check_index_validity=False)
        tbs, _, _ = self._transport_block.transport_block_size(order, code_rate, order * num_re)
        return self._torch.where(num_re > 0, tbs, 0).to(self._torch.int32)


def run_loop(
    sinr: np.ndarray,
    *,
    precision: str = "double",
    seed: int = 0,
    uniforms: np.ndarray | None = None,
    mcs_table: int = 1,
    beta: float = 0.98,
    bler_target: float = 0.1,
    form: str = "effective",
) -> SlotRecord:
    """Run Sionna's closed loop and keep every slot's decision, outcome and prior state.

    Args:
        sinr: [T, B, N, U] linear SINR at equal power.
        precision: Sionna's; "double" to compare numbers.
        seed: of the ACK draws.
        uniforms: [T, B, U] in [0, 1) deciding the ACKs; None draws them from `seed`.
        mcs_table: 1 or 2.
        beta: PF's forgetting factor.
        bler_target: what OLLA steers to.
        form: as in `SionnaLoop`.

    Returns:
        A `SlotRecord` of NumPy arrays.

    Raises:
        ValueError: if `sinr` is not 4-dimensional, or `uniforms` does not match it.
    """
    import torch

    if sinr.ndim != 4:
        raise ValueError(f"sinr must be [slots, batch, PRBs, users], got shape {sinr.shape}")
    num_slots, batch, num_prbs, num_users = sinr.shape
    if uniforms is None:
        uniforms = np.random.default_rng(seed).random((num_slots, batch, num_users))
    if uniforms.shape != (num_slots, batch, num_users):
        raise ValueError(
            f"uniforms must be [slots, batch, users] = {(num_slots, batch, num_users)}, "
            f"got {uniforms.shape}"
        )
    loop = SionnaLoop(
        batch,
        num_users,
        num_prbs,
        precision=precision,
        mcs_table=mcs_table,
        beta=beta,
        bler_target=bler_target,
        form=form,
        seed=seed,
    )
    slots = []
    with torch.inference_mode():
        for slot in range(num_slots):
            before = {
                "average_before": loop.scheduler.rate_achieved_past.clone(),
                "offset_before": loop.olla.offset.clone(),
                "sinr_eff_db_before": loop.olla.sinr_eff_db_last.clone(),
                "feedback_before": loop.feedback,
                "sinr_eff_before": loop.sinr_eff,
                "bits_before": loop.bits,
            }
            out = loop.step(
                torch.as_tensor(sinr[slot], dtype=loop.dtype),
                torch.as_tensor(uniforms[slot], dtype=loop.dtype),
            )
            out["owner"] = out.pop("scheduled").to(torch.int8).argmax(dim=-1)
            out["achievable_rate"] = out.pop("rate")
            after = {
                "average": loop.scheduler.rate_achieved_past.clone(),
                "offset": loop.olla.offset.clone(),
                "sinr_eff_db": loop.olla.sinr_eff_db_last.clone(),
            }
            slots.append({key: value.numpy() for key, value in (before | out | after).items()})
    return SlotRecord(**{key: np.stack([s[key] for s in slots]) for key in SlotRecord._fields})
