"""How far a preference is from Bradley and Terry's model, and a warning where it matters."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.optimize
import scipy.special
from jax.typing import ArrayLike

from prefs.feedback.checks import known
from prefs.feedback.labellers import Labeller, PreferenceMatrix, preference_matrix
from prefs.feedback.segments import Pairs
from prefs.feedback.teachers import Teacher

_EXACT_ITEMS = 12  # up to here the best order is found among all of them
_LARGEST_UTILITY = 40.0


class Intransitivity(NamedTuple):
    """The best a Bradley-Terry model can do against a preference.

    Attributes:
      utilities: float64[n], of the model of largest likelihood; their mean is 0.
      log_likelihood: its mean log likelihood of an answer in nats, at most `bound`: the ceiling
        of every Bradley-Terry learner.
      bound: that of the preference itself, minus the mean entropy of its answers.
      gap: bound - log_likelihood, at least 0; 0 exactly for a Bradley-Terry preference or a limit
        of such, as a total order is.
      agreement: largest share of answers that one order of the items agrees with: of all orders
        for up to 12 items, of the fitted one's beyond.
      agreement_bound: the share that the more likely answer to each pair agrees with.
      cycles: triples i, j, k with i over j over k over i, all with probability above 1/2.
    """

    utilities: np.ndarray
    log_likelihood: float
    bound: float
    gap: float
    agreement: float
    agreement_bound: float
    cycles: int


def intransitivity(matrix: ArrayLike, weights: ArrayLike | None = None) -> Intransitivity:
    """Measure how far a preference matrix is from Bradley and Terry's model. On the host, float64.

    Args:
      matrix: float[n, n], P(i preferred to j), P + P^T = 1.
      weights: float[n, n], at least 0: how often i and j are compared (both triangles are added);
        None for all alike.

    Raises:
      ValueError: a matrix that `preference_matrix` refuses or of one item, weights of another
        shape or negative, or nothing compared.
    """
    preference_matrix(matrix)
    chance = np.asarray(matrix, np.float64)
    number = len(chance)
    weight = np.ones((number, number)) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != chance.shape or not (weight >= 0).all():
        raise ValueError(f"weights must be {chance.shape} and at least 0, got {weight.shape}.")
    row, column = np.triu_indices(number, 1)
    pair_weight = (weight + weight.T)[row, column]
    if pair_weight.sum() == 0:
        raise ValueError("nothing to compare: the weights of all pairs of items are 0.")
    pair_weight = pair_weight / pair_weight.sum()
    over = chance[row, column]

    def loss(utilities):
        difference = utilities[row] - utilities[column]
        # softplus of both signs, the answer's probability times each
        terms = np.logaddexp(0, -difference) + (1 - over) * difference
        slope = pair_weight * (scipy.special.expit(difference) - over)
        gradient = np.bincount(row, slope, number) - np.bincount(column, slope, number)
        return pair_weight @ terms, gradient

    fit = scipy.optimize.minimize(
        loss,
        np.zeros(number),
        jac=True,
        method="L-BFGS-B",
        bounds=[(-_LARGEST_UTILITY, _LARGEST_UTILITY)] * number,
        options={"maxiter": 2000, "maxfun": 4000, "ftol": 1e-15, "gtol": 1e-10},
    )
    bound = -pair_weight @ (scipy.special.entr(over) + scipy.special.entr(1 - over))
    wins = np.zeros((number, number))
    wins[row, column], wins[column, row] = pair_weight * over, pair_weight * (1 - over)
    beats = (chance > 0.5) & (weight + weight.T > 0)
    return Intransitivity(
        utilities=fit.x - fit.x.mean(),
        log_likelihood=float(-fit.fun),
        bound=float(bound),
        gap=float(max(0.0, bound + fit.fun)),
        agreement=_agreement(wins, fit.x),
        agreement_bound=float(pair_weight @ np.maximum(over, 1 - over)),
        cycles=int(np.trace(np.linalg.matrix_power(beats.astype(np.int64), 3)) // 3),
    )


def pair_matrix(pairs: Pairs, num_segments: int) -> tuple[np.ndarray, np.ndarray]:
    """Mean label and number of the comparisons of every two segments, both float64[N, N].

    For `intransitivity` of a data set; in drawn answers noise counts as intransitivity too.
    """
    mask = np.asarray(pairs.mask)
    index = np.asarray(pairs.first)[mask], np.asarray(pairs.second)[mask]
    label = np.asarray(pairs.label, np.float64)[mask]
    won, met = np.zeros((num_segments, num_segments)), np.zeros((num_segments, num_segments))
    np.add.at(won, index, label)
    np.add.at(won, index[::-1], 1 - label)
    np.add.at(met, index, 1.0)
    np.add.at(met, index[::-1], 1.0)
    return np.divide(won, met, out=np.full(won.shape, 0.5), where=met > 0), met / 2


def warn_if_intransitive(
    labeller: Labeller | ArrayLike, tolerance: float = 1e-3, stacklevel: int = 2
) -> Intransitivity | None:
    """For a Bradley-Terry learner: warn when no such model can express the preference it is given.

    Args:
      labeller: a labeller, a teacher on top of one, or a preference matrix.
      tolerance: nats per answer by which the likelihood may miss its bound without a warning.
      stacklevel: whose line the warning names; 2 is the caller's.

    Returns:
      The measurement, or None where there is nothing to measure: a labeller with utilities, or
      traced values.

    Warns:
      UserWarning: the gap exceeds the tolerance; the message gives the measured ceilings.
    """
    matrix = _matrix_of(labeller)
    if matrix is None:
        return None
    found = intransitivity(matrix)
    if found.gap > tolerance:
        warnings.warn(
            f"no Bradley-Terry model fits this preference ({found.cycles} cyclic triples): at best "
            f"its log likelihood is {found.log_likelihood:.4f} nats an answer (the preference's "
            f"own: {found.bound:.4f}) and one order agrees with {found.agreement:.1%} of the "
            f"answers (the preference's own: {found.agreement_bound:.1%}).",
            UserWarning,
            stacklevel=stacklevel,
        )
    return found


def _matrix_of(source: Labeller | ArrayLike) -> np.ndarray | None:
    inner = source.labeller if isinstance(source, Teacher) else source
    if isinstance(inner, Labeller) and not isinstance(inner, PreferenceMatrix):
        return None
    if any(known(leaf) is None for leaf in jax.tree.leaves(source)):
        return None
    if not isinstance(inner, PreferenceMatrix):
        return np.asarray(inner)
    if not isinstance(source, Teacher):
        return np.asarray(inner.matrix)
    items = jnp.arange(inner.matrix.shape[0])
    scores = jnp.stack([items, items], -1)
    return np.asarray(_preferences(source, scores[:, None], scores[None, :]))


@jax.jit
def _preferences(judge: Labeller, first: jax.Array, second: jax.Array) -> jax.Array:
    return judge.preference(first, second)


def _agreement(wins: np.ndarray, utilities: np.ndarray) -> float:
    """Largest share of answers that agree with an order; wins[i, j] is the share for i over j."""
    number = len(wins)
    if number > _EXACT_ITEMS:
        order = np.argsort(-utilities, kind="stable")
        return float(np.triu(wins[np.ix_(order, order)], 1).sum())
    # best[s] places the items of s before all others (Held and Karp's recursion over subsets)
    best = np.zeros(1 << number)
    gains = np.zeros((1 << number, number))  # of placing each item right after the subset
    for subset in range(1, 1 << number):
        low = (subset & -subset).bit_length() - 1
        gains[subset] = gains[subset & (subset - 1)] + wins[low]
        best[subset] = max(
            best[subset ^ (1 << item)] + gains[subset ^ (1 << item), item]
            for item in range(number)
            if subset >> item & 1
        )
    return float(best[-1])
