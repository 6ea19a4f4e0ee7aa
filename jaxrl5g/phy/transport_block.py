"""Transport block size and code-block segmentation (TS 38.214 5.1.3.2, TS 38.212 5.2.2)."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from jaxrl5g.phy.lookup import ceil_div, ceil_div_constant, floor_div, take
from jaxrl5g.phy.options import check_fidelity

_SMALL_LIMIT = 3824  # largest N_info that uses the table


@functools.cache
def small_block_sizes() -> np.ndarray:
    """The 93 entries of TS 38.214 table 5.1.3.2-1, int32, ascending, all multiples of 8."""
    irregular = (
        408, 432, 456, 480, 504, 528, 552, 576, 608, 640, 672, 704, 736, 768, 808, 848, 888, 928,
        984, 1032, 1064, 1128, 1160, 1192, 1224, 1256, 1288, 1320, 1352, 1416, 1480, 1544, 1608,
        1672, 1736, 1800, 1864, 1928, 2024, 2088, 2152, 2216, 2280, 2408, 2472, 2536, 2600, 2664,
        2728, 2792, 2856, 2976, 3104, 3240, 3368, 3496, 3624, 3752, 3824,
    )  # fmt: skip
    return np.asarray((*range(24, 193, 8), *range(208, 385, 16), *irregular), np.int32)


@functools.cache
def sizes_by_eighth() -> np.ndarray:
    """int32[479]: smallest table entry >= 8 k, so that one gather replaces a 93-way search."""
    sizes = small_block_sizes()
    return sizes[np.searchsorted(sizes, 8 * np.arange(_SMALL_LIMIT // 8 + 1))]


def _floor_log2(value: Array) -> Array:
    """floor(log2(value)) of int32 >= 1, exact (float32 log2 is not at powers of two)."""
    return 31 - jax.lax.clz(value)


class Segmentation(NamedTuple):
    """How a grant is cut into code blocks, before any table is read.

    Attributes:
        small: bool, N_info <= 3824: one code block whose size the table gives.
        eighth: int32, where small: N'/8, the index into `sizes_by_eighth()`.
        large_size: int32, where not small: bits per code block with its CRCs.
        blocks: int32 >= 1, number of code blocks.
    """

    small: Array
    eighth: Array
    large_size: Array
    blocks: Array


def _table_index(info_bits: Array) -> Array:
    """N'/8 for N_info <= 3824 (step 2); `info_bits` is floor(N_info), int32."""
    info_bits = jnp.clip(info_bits, 1, _SMALL_LIMIT)
    shift = jnp.maximum(3, _floor_log2(info_bits) - 6)
    return jnp.maximum(24, (info_bits >> shift) << shift) >> 3


def _quantise_exact(resources: Array, code_rate: Array) -> tuple[Array, Array, Array]:
    """(small, N'/8 if small, N' if not); N_info is an integer and a fraction / 2048, in int32."""
    rate2048 = jnp.round(code_rate * 2048.0).astype(jnp.int32)
    low = (resources & 2047) * rate2048
    whole = (resources >> 11) * rate2048 + (low >> 11)
    fraction = low & 2047
    small = (whole < _SMALL_LIMIT) | ((whole == _SMALL_LIMIT) & (fraction == 0))

    excess = jnp.maximum(whole, _SMALL_LIMIT) - 24
    shift = _floor_log2(excess) - 5
    # Adding half a step and truncating rounds ties upward; the step is at least 64, so the
    # fraction below one bit cannot reach the next multiple.
    half = jnp.left_shift(jnp.int32(1), shift - 1)
    return small, _table_index(whole), jnp.maximum(3840, ((excess + half) >> shift) << shift)


def _quantise_sionna(resources: Array, code_rate: Array) -> tuple[Array, Array, Array]:
    """The same on N_info rounded to float32, as Sionna 2.2.0 computes it."""
    info_bits = code_rate * resources.astype(jnp.float32)
    excess = jnp.maximum(info_bits, _SMALL_LIMIT) - 24.0
    shift = _floor_log2(excess.astype(jnp.int32)) - 5
    step = jnp.left_shift(jnp.int32(1), shift).astype(jnp.float32)
    quantised = (jnp.floor(excess / step + 0.5) * step).astype(jnp.int32)
    small = info_bits <= _SMALL_LIMIT
    return small, _table_index(info_bits.astype(jnp.int32)), jnp.maximum(3840, quantised)


def segment(resources: Array, code_rate: Array, fidelity: str) -> Segmentation:
    """Code blocks of a grant of `resources` = RE * Qm * layers > 0 coded bits, int32.

    The same code blocks as `code_blocks(transport_block_size(...))`, without the detour through
    the transport block size; "nr" or "sionna".
    """
    quantise = _quantise_exact if fidelity == "nr" else _quantise_sionna
    small, eighth, quantised = quantise(resources, code_rate)
    low_rate = ceil_div_constant(quantised + 24, 3816)
    high_rate = jnp.where(quantised > 8424, ceil_div_constant(quantised + 24, 8424), 1)
    blocks = jnp.where(small, 1, jnp.where(code_rate <= 0.25, low_rate, high_rate))
    # N' + 24 is a multiple of 8: divide eighths by the number of blocks
    size = 8 * ceil_div((quantised + 24) >> 3, blocks)
    return Segmentation(small, eighth, size + jnp.where(blocks > 1, 24, 0), blocks)


def transport_block_size(
    num_re: ArrayLike,
    modulation_order: ArrayLike,
    code_rate: ArrayLike,
    num_layers: ArrayLike = 1,
    fidelity: str = "nr",
) -> Array:
    """Transport block size in bits (TS 38.214 5.1.3.2).

    Args:
        num_re: resource elements of the grant, integers >= 0 of any shape. The limit of 156 per
            PRB is the caller's: it needs the number of PRBs, which this function does not see.
        modulation_order: bits per symbol Qm.
        code_rate: target code rate R, a multiple of 1/2048.
        num_layers: spatial layers. The arguments broadcast; `num_re * Qm * num_layers` must stay
            below 2^24.
        fidelity: "nr" is exact (integer arithmetic, ties upward); "sionna" rounds
            N_info to float32 first, as Sionna 2.2.0 does; "shannon" is N_info itself, unquantised.

    Returns:
        int32 bits ("nr", "sionna") or float32 bits ("shannon"), broadcast shape; 0 for no
        resource elements.

    Raises:
        ValueError: unknown fidelity.
    """
    check_fidelity(fidelity)
    resources = jnp.asarray(num_re, jnp.int32) * jnp.asarray(modulation_order, jnp.int32)
    resources = resources * jnp.asarray(num_layers, jnp.int32)
    code_rate = jnp.asarray(code_rate, jnp.float32)
    if fidelity == "shannon":
        return code_rate * resources.astype(jnp.float32)
    cut = segment(resources, code_rate, fidelity)
    payload = cut.large_size - jnp.where(cut.blocks > 1, 24, 0)
    size = jnp.where(cut.small, take(sizes_by_eighth(), cut.eighth), cut.blocks * payload - 24)
    return jnp.where(resources > 0, size, 0)


def code_blocks(tbs: ArrayLike, code_rate: ArrayLike) -> tuple[Array, Array]:
    """Segmentation of a transport block (TS 38.212 5.2.2 and 7.2.1).

    Args:
        tbs: transport block size in bits, integers >= 0.
        code_rate: target code rate; R <= 1/4 uses the smaller base graph. Broadcasts with `tbs`.

    Returns:
        `(code_block_size, num_code_blocks)`, int32: bits per code block with its CRCs, and how
        many. The transport block's CRC is 24 bit above 3824 bits and 16 bit otherwise; each of
        several code blocks has 24 more. A size of 0 gives (0, 0).
    """
    tbs = jnp.asarray(tbs, jnp.int32)
    code_rate = jnp.asarray(code_rate, jnp.float32)
    tbs, code_rate = jnp.broadcast_arrays(tbs, code_rate)
    large = tbs > _SMALL_LIMIT
    low_rate = ceil_div_constant(tbs + 24, 3816)
    high_rate = jnp.where(tbs + 24 > 8448, ceil_div_constant(tbs + 24, 8424), 1)
    blocks = jnp.where(large, jnp.where(code_rate <= 0.25, low_rate, high_rate), 1)
    total = tbs + jnp.where(large, 24, 16)
    size = floor_div(total, blocks) + jnp.where(blocks > 1, 24, 0)
    empty = tbs <= 0
    return jnp.where(empty, 0, size), jnp.where(empty, 0, blocks)
