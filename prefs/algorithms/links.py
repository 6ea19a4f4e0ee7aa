"""Links from a difference of utilities to the probability that the first is preferred.

A link Phi has Phi(m) + Phi(-m) = 1 and a log-concave Phi, so that the likelihood of comparisons has
one maximum. Both links judge as well as model: `preference` is all that a learner asks of who
answers its queries.
"""

from __future__ import annotations

from typing import Protocol

import jax
import jax.numpy as jnp
from flax import struct

Number = float | jax.Array
"""A setting: a number, or a traced array [] of one."""


class Judge(Protocol):
    """Whoever answers: any labeller with this method, of either link here or of prefs.feedback."""

    def preference(self, first: jax.Array, second: jax.Array, /) -> jax.Array:
        """P(first preferred), in [0, 1], from the utilities of both; shapes as theirs."""
        ...


class Logistic(struct.PyTreeNode):
    """Phi(m) = 1 / (1 + exp(-scale m)), Bradley and Terry's model.

    Attributes:
      scale: [], at least 0; how decided the judge is.
    """

    scale: Number = 1.0

    def preference(self, first: jax.Array, second: jax.Array, /) -> jax.Array:
        """Phi(first - second)."""
        return jax.nn.sigmoid(self.scale * (first - second))

    def log_probability(self, margin: jax.Array) -> jax.Array:
        """Log Phi(margin)."""
        return -jax.nn.softplus(-self.scale * margin)

    def score(self, margin: jax.Array) -> jax.Array:
        """First derivative of log Phi."""
        return self.scale * jax.nn.sigmoid(-self.scale * margin)

    def information(self, margin: jax.Array) -> jax.Array:
        """Minus the second derivative of log Phi, at least 0."""
        probability = jax.nn.sigmoid(self.scale * margin)
        return jnp.square(self.scale) * probability * jax.nn.sigmoid(-self.scale * margin)


class Probit(struct.PyTreeNode):
    """Phi(m) = the normal distribution function at scale m, Thurstone's model.

    Attributes:
      scale: [], at least 0.
    """

    scale: Number = 1.0

    def preference(self, first: jax.Array, second: jax.Array, /) -> jax.Array:
        """Phi(first - second)."""
        return jax.scipy.special.ndtr(self.scale * (first - second))

    def log_probability(self, margin: jax.Array) -> jax.Array:
        """Log Phi(margin)."""
        return jax.scipy.special.log_ndtr(self.scale * margin)

    def score(self, margin: jax.Array) -> jax.Array:
        """First derivative of log Phi."""
        return self.scale * self._hazard(margin)

    def information(self, margin: jax.Array) -> jax.Array:
        """Minus the second derivative of log Phi, at least 0."""
        hazard = self._hazard(margin)
        # rounding far to the left would make the difference of large numbers negative
        return jnp.square(self.scale) * jnp.maximum(hazard * (hazard + self.scale * margin), 0)

    def _hazard(self, margin: jax.Array) -> jax.Array:
        z = self.scale * margin
        return jnp.exp(jax.scipy.stats.norm.logpdf(z) - jax.scipy.special.log_ndtr(z))


Link = Logistic | Probit
