"""Time Sionna SYS's closed loop at its best: both input forms, eager and compiled."""

import importlib.util
import time
from typing import Any

import numpy as np

from experiments.sionna_loop import FORMS, SionnaLoop


def why_not() -> str | None:
    """Return why Sionna's loop cannot run here, None where it can."""
    for module in ("torch", "sionna"):
        if importlib.util.find_spec(module) is None:
            return f"{module} is not installed; the `sionna` extra brings it"
    if importlib.util.find_spec("sionna.sys") is None:
        return "sionna.sys is not installed; the `sionna` extra brings it"
    from jaxrl5g.channel import check_llvm

    try:
        check_llvm()  # importing Sionna loads Dr.Jit, which an old LLVM aborts
    except RuntimeError as error:
        return str(error)
    return None


def time_loop(
    batch: int,
    num_users: int,
    num_prbs: int,
    *,
    form: str = "effective",
    compiled: bool = False,
    threads: int = 2,
    seconds: float = 3.0,
) -> dict[str, Any]:
    """Time one form of the loop on i.i.d. Rayleigh SINRs that are ready in memory.

    Args:
        batch: cells side by side.
        num_users: users per cell.
        num_prbs: PRBs.
        form: of the SINR input, as in `SionnaLoop`.
        compiled: run the slot through `torch.compile`.
        threads: of torch.
        seconds: spent timing; at least three slots are timed.

    Returns:
        `slots_per_s` (cell-slots, median), `best_slots_per_s` and the form.
    """
    import torch

    torch.set_num_threads(threads)
    loop = SionnaLoop(batch, num_users, num_prbs, form=form)
    rng = np.random.default_rng(0)
    mean = 10 ** rng.uniform(0.0, 2.5, (batch, 1, num_users))
    draws = [mean * rng.exponential(size=(batch, num_prbs, num_users)) for _ in range(4)]
    sinrs = [torch.as_tensor(draw, dtype=torch.float32) for draw in draws]
    step = torch.compile(loop.step) if compiled else loop.step
    began = time.perf_counter()
    # torch.compile's guards reject inference mode; there no_grad does as much.
    with torch.no_grad() if compiled else torch.inference_mode():
        for warm_up in range(3):
            step(sinrs[warm_up])
        first = time.perf_counter() - began
        times: list[float] = []
        until = time.perf_counter() + seconds
        while len(times) < 3 or time.perf_counter() < until:
            tick = time.perf_counter()
            step(sinrs[len(times) % len(sinrs)])
            times.append(time.perf_counter() - tick)
    return {
        "batch": batch,
        "input": form,
        "compiled": compiled,
        "first_calls_s": first,
        "slots_per_s": batch / float(np.median(times)),
        "best_slots_per_s": batch / min(times),
    }


def measure_sionna(num_users: int, num_prbs: int, threads: int, quick: bool) -> dict[str, Any]:
    """Search for Sionna's best form and batch.

    Returns:
        `rows` of `time_loop`, the `best` of them and `best_by_input`, the best of each form of
        input; or `skipped` with the reason.
    """
    reason = why_not()
    if reason is not None:
        return {"skipped": reason}
    batches = (256, 512) if quick else (1, 64, 128, 256, 512, 1024)
    forms: list[dict[str, Any]] = [{"batch": batch} for batch in batches]
    forms += [{"batch": b, "form": "grid"} for b in ((128,) if quick else (1, 16, 64, 128, 256))]
    forms += [{"batch": b, "form": "elements"} for b in ((16,) if quick else (1, 16, 64))]
    if not quick:
        forms += [{"batch": batch, "compiled": True} for batch in (256, 512)]
    rows, failed = [], []
    for form in forms:
        try:
            rows.append(time_loop(**form, num_users=num_users, num_prbs=num_prbs, threads=threads))
        except Exception as error:  # torch.compile may lack a compiler: say so, go on
            failed.append(form | {"error": " ".join(str(error).split())[:200]})
    return {
        "threads": threads,
        "rows": rows,
        "failed": failed,
        "best": max(rows, key=lambda row: row["slots_per_s"], default=None),
        "best_by_input": {
            form: max(
                (row for row in rows if row["input"] == form),
                key=lambda row: row["slots_per_s"],
                default=None,
            )
            for form in FORMS
        },
    }
