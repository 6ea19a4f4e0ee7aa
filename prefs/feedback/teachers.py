"""Imperfect teachers on top of any labeller: the knobs of B-Pref (Lee et al. 2021).

As there, skipping and ties look at the honest utilities, and only the preference itself is
myopic; a tie is never flipped by mistake. Ours: rationality is infinite, not -1, for the exact
argmax; an exact tie of the argmax is a tie; the thresholds are utilities, of which B-Pref takes
a tenth of the present policy's mean for a segment; and the knobs are defined for rankings too.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from prefs.feedback.checks import check_not_negative, check_probabilities, known
from prefs.feedback.labellers import Labeller, PreferenceMatrix, round_robin
from prefs.feedback.segments import Segments


class Teacher(Labeller):
    """A labeller with B-Pref's imperfections; `teacher` checks what is put in.

    P(first) = (1 - mistake) p + mistake (1 - p), p = sigmoid(rationality * log odds), where the
    log odds are of myopic utilities. Every number is a leaf float[] and may be traced.

    Attributes:
      labeller: whose utilities or preferences these are.
      rationality: beta, at least 0; infinite for the exact argmax.
      myopia: gamma in [0, 1]; a step counts gamma^(steps after it) times, the last in full.
      mistake: probability in [0, 1] that an answer is flipped (of K segments: reversed).
      skip: no answer unless the best utility exceeds it; -inf to answer always.
      equal: a tie where the log odds (the difference of utilities) are below it; 0 for none.
    """

    labeller: Labeller
    rationality: ArrayLike = 1.0
    myopia: ArrayLike = 1.0
    mistake: ArrayLike = 0.0
    skip: ArrayLike = -jnp.inf
    equal: ArrayLike = 0.0

    def score(self, segments: Segments, myopia: ArrayLike = 1.0) -> Array:
        """Honest and myopic scores, [N, 2]."""
        honest = self.labeller.score(segments)
        seen = self.labeller.score(segments, jnp.asarray(self.myopia) * myopia)
        return jnp.stack([honest, seen], -1)

    def log_odds(self, first: Array, second: Array) -> Array:
        """Log odds before mistakes and ties; +-inf or 0 for the exact argmax."""
        odds = self.labeller.log_odds(first[..., 1], second[..., 1])
        exact = jnp.isinf(self.rationality)
        sure = jnp.where(odds == 0, 0.0, jnp.copysign(jnp.inf, odds))
        return jnp.where(exact, sure, jnp.where(exact, 1.0, self.rationality) * odds)

    def preference(self, first: Array, second: Array) -> Array:
        """Probability float[M] that the answer is "first", a tie counted as half of one."""
        chance = jax.nn.sigmoid(self.log_odds(first, second))
        answer = chance + self.mistake * (1 - 2 * chance)
        return jnp.where(self.tied(first, second), 0.5, answer)

    def tied(self, first: Array, second: Array) -> Array:
        honest = self.labeller.log_odds(first[..., 0], second[..., 0])
        close = jnp.abs(honest) < self.equal
        return close | (jnp.isinf(self.rationality) & (self.log_odds(first, second) == 0))

    def keeps(self, first: Array, second: Array) -> Array:
        if isinstance(self.labeller, PreferenceMatrix):
            return self.labeller.keeps(first[..., 0], second[..., 0])
        return jnp.maximum(first[..., 0], second[..., 0]) > self.skip

    def ranking_keys(self, key: Array, scores: Array) -> Array:
        of_rank, of_mistake = jax.random.split(key)
        if isinstance(self.labeller, PreferenceMatrix):
            odds = self.log_odds(scores[:, :, None], scores[:, None, :])
            keys = round_robin(of_rank, jax.nn.sigmoid(odds))
        else:
            seen = scores[..., 1]
            exact = jnp.isinf(self.rationality)
            noise = jax.random.gumbel(of_rank, seen.shape, seen.dtype)
            keys = jnp.where(exact, seen, jnp.where(exact, 1.0, self.rationality) * seen + noise)
        flip = jax.random.bernoulli(of_mistake, self.mistake, keys.shape[:1])
        return jnp.where(flip[:, None], -keys, keys)


def teacher(
    labeller: Labeller,
    rationality: ArrayLike = 1.0,
    myopia: ArrayLike = 1.0,
    mistake: ArrayLike = 0.0,
    skip: ArrayLike = -jnp.inf,
    equal: ArrayLike = 0.0,
) -> Teacher:
    """Teacher with the knobs of `Teacher`; traced ones are taken as they are.

    Raises:
      ValueError: a concrete knob out of its range, a teacher on top of a teacher, or `skip` on top
        of a preference matrix, which has no utility to compare with it.
    """
    if isinstance(labeller, Teacher):
        raise ValueError("a teacher goes on top of a labeller, not of another teacher.")
    check_probabilities("myopia", myopia)
    check_probabilities("mistake", mistake)
    check_not_negative("rationality", rationality)
    check_not_negative("equal", equal)
    threshold = known(skip)
    if isinstance(labeller, PreferenceMatrix) and (
        threshold is None or (threshold > -np.inf).any()
    ):
        raise ValueError("a preference matrix has no utility that `skip` could be compared with.")
    if threshold is not None and np.isnan(threshold).any():
        raise ValueError("skip must be a utility, got NaN.")
    return Teacher(labeller, rationality, myopia, mistake, skip, equal)


def oracle(labeller: Labeller) -> Teacher:
    """B-Pref's Oracle: always the segment of larger utility."""
    return teacher(labeller, rationality=jnp.inf)


def mistake(labeller: Labeller, probability: ArrayLike = 0.1) -> Teacher:
    """B-Pref's Mistake: the oracle's answer, flipped with a probability."""
    return teacher(labeller, rationality=jnp.inf, mistake=probability)


def noisy(labeller: Labeller, rationality: ArrayLike = 1.0) -> Teacher:
    """B-Pref's Noisy: Bradley and Terry's rule."""
    return teacher(labeller, rationality=rationality)


def skip(labeller: Labeller, scale: ArrayLike, share: ArrayLike = 0.1) -> Teacher:
    """B-Pref's Skip: no answer unless a segment has a utility above share * scale.

    B-Pref's scale is the mean utility of the present policy's segments.
    """
    return teacher(labeller, rationality=jnp.inf, skip=share * jnp.asarray(scale))


def myopic(labeller: Labeller, discount: ArrayLike = 0.9) -> Teacher:
    """B-Pref's Myopic: the oracle, but early steps count less."""
    return teacher(labeller, rationality=jnp.inf, myopia=discount)


def equal(labeller: Labeller, scale: ArrayLike, share: ArrayLike = 0.1) -> Teacher:
    """B-Pref's Equal: a tie where utilities differ by less than share * scale."""
    return teacher(labeller, rationality=jnp.inf, equal=share * jnp.abs(jnp.asarray(scale)))


TEACHERS: dict[str, Callable[..., Teacher]] = {
    "oracle": oracle,
    "mistake": mistake,
    "noisy": noisy,
    "skip": skip,
    "myopic": myopic,
    "equal": equal,
}
"""B-Pref's teachers by name; "skip" and "equal" also take a scale."""
