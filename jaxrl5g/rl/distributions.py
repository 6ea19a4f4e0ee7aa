"""Policies' distributions over a latent action, with a mask, behind one face.

A policy samples a latent; `action` turns it into what the environment gets. Log-probability,
entropy and KL divergence are always of the latent, so the ratio of two policies never passes
through a softmax, an apportionment or any other map that is not one to one. (A Dirichlet over
the shares themselves is no alternative: in float32 its log-densities overflow at the
concentrations that training reaches.) Masked entries have latent 0, contribute exactly 0 to
every sum, and get no gradient; what stands there, NaN included, is not read.

The only module that imports distrax.
"""

from __future__ import annotations

import distrax
import jax
import jax.numpy as jnp
from flax import struct
from jax import Array
from jax.typing import ArrayLike

LOG_STD_RANGE = (-5.0, 2.0)
"""Log standard deviations are clipped to this range; outside it they get no gradient."""

_NEVER = -1e30  # the logit of a masked category: probability exactly 0, yet finite


class DiagonalGaussian(struct.PyTreeNode):
    """Independent normal latents; the action is the latent itself.

    Results are finite for means and latents up to 1e15 in size. The last `event_axes` axes of the
    latent form one event: `log_prob`, `entropy` and `kl` sum over them.

    Attributes:
      mean: float[..., *event].
      log_std: float, broadcasts against `mean`; clipped to `LOG_STD_RANGE`.
      mask: bool, broadcasts against `mean`; False entries do not exist. None for all present.
      event_axes: static, from 1 to the latent's rank.
    """

    mean: Array
    log_std: Array
    mask: Array | None = None
    event_axes: int = struct.field(pytree_node=False, default=1)

    def sample(self, key: Array) -> Array:
        """Draw a latent, float32[..., *event], 0 where masked."""
        present, normal = self._parts()
        return jnp.where(present, normal.sample(seed=key), 0.0)

    def mode(self) -> Array:
        """The most probable latent, float32[..., *event]: the mean, 0 where masked."""
        present, normal = self._parts()
        return jnp.where(present, normal.mode(), 0.0)

    def log_prob(self, latent: Array) -> Array:
        """Joint log-density, float32[...], of a latent float[..., *event], in nats."""
        present, normal = self._parts()
        return self._total(present, normal.log_prob(jnp.where(present, latent, 0.0)))

    def entropy(self) -> Array:
        """Differential entropy, float32[...], in nats."""
        present, normal = self._parts()
        return self._total(present, normal.entropy())

    def kl(self, other: DiagonalGaussian) -> Array:
        """KL(self || other), float32[...], in nats; `other` has the same mask."""
        present, normal = self._parts()
        return self._total(present, normal.kl_divergence(other._parts()[1]))

    def action(self, latent: Array) -> Array:
        """What the environment gets: the latent as it is."""
        return latent

    def _parts(self) -> tuple[Array, distrax.Normal]:
        """Who is present, and the entries' distributions, standard normal where masked."""
        mask = True if self.mask is None else self.mask
        mean, log_std, present = jnp.broadcast_arrays(self.mean, self.log_std, mask)
        _check_event(self.event_axes, mean)
        mean = jnp.where(present, mean, 0.0)
        log_std = jnp.clip(jnp.where(present, log_std, 0.0), *LOG_STD_RANGE)
        return present, distrax.Normal(mean, jnp.exp(log_std))

    def _total(self, present: Array, values: ArrayLike) -> Array:
        return jnp.sum(jnp.where(present, values, 0.0), axis=tuple(range(-self.event_axes, 0)))


class CoherentGaussian(struct.PyTreeNode):
    """Normal latents with independent noise, and noise that all share along a direction.

    latent = mean + std * e + x * along with e and x standard normal: a covariance diag(std^2) +
    along along^T, whose inverse and determinant are those of a rank-one update. For decisions that
    pay off where all entries go the same way together, and not by halves. The last axis of the
    latent is one event.

    Attributes:
      mean: float[..., E].
      log_std: float, broadcasts against `mean`; clipped to `LOG_STD_RANGE`.
      along: float[..., E], in units of the latent.
      mask: bool[..., E]; False entries do not exist.
    """

    mean: Array
    log_std: Array
    along: Array
    mask: Array

    def sample(self, key: Array) -> Array:
        """Draw a latent, float32[..., E], 0 where masked."""
        mean, std, along, _ = self._parts()
        alone, together = jax.random.split(key)
        noise = std * jax.random.normal(alone, mean.shape)
        shared = jax.random.normal(together, (*mean.shape[:-1], 1))
        return jnp.where(self.mask, mean + noise + shared * along, 0.0)

    def mode(self) -> Array:
        """The most probable latent, float32[..., E]: the mean, 0 where masked."""
        return self._parts()[0]

    def log_prob(self, latent: Array) -> Array:
        """Joint log-density, float32[...], of a latent float[..., E], in nats."""
        mean, *_ = self._parts()
        latent = jnp.where(self.mask, latent, 0.0)
        volume = self._log_volume() + self._count() * jnp.log(2.0 * jnp.pi)
        return -0.5 * (self._square(latent - mean) + volume)

    def entropy(self) -> Array:
        """Differential entropy, float32[...], in nats."""
        return 0.5 * (self._count() * (1.0 + jnp.log(2.0 * jnp.pi)) + self._log_volume())

    def kl(self, other: CoherentGaussian) -> Array:
        """KL(self || other), float32[...], in nats; `other` has the same mask."""
        mean, std, along, _ = self._parts()
        other_mean, other_std, other_along, _ = other._parts()
        ratio = jnp.where(self.mask, std / other_std, 0.0)
        # the trace of other's inverse covariance times this one's diagonal, then the other terms
        pull = other_along / other_std
        trace = jnp.sum(ratio**2, -1) - jnp.sum((ratio * pull) ** 2, -1) / (
            1.0 + jnp.sum(pull**2, -1)
        )
        spread = trace + other._square(along) + other._square(mean - other_mean)
        return 0.5 * (spread - self._count() + other._log_volume() - self._log_volume())

    def _parts(self) -> tuple[Array, Array, Array, Array]:
        """Mean, standard deviation and direction, 0, 1 and 0 where masked, and the mask."""
        mean, log_std, along, mask = jnp.broadcast_arrays(
            self.mean, self.log_std, self.along, self.mask
        )
        mean, along = jnp.where(mask, mean, 0.0), jnp.where(mask, along, 0.0)
        return mean, jnp.exp(jnp.clip(jnp.where(mask, log_std, 0.0), *LOG_STD_RANGE)), along, mask

    def _count(self) -> Array:
        return jnp.sum(self._parts()[3], axis=-1)

    def _log_volume(self) -> Array:
        """Logarithm of the covariance's determinant."""
        _, std, along, _ = self._parts()
        pull = jnp.sum((along / std) ** 2, axis=-1)
        return 2.0 * jnp.sum(jnp.log(std), axis=-1) + jnp.log1p(pull)

    def _square(self, difference: Array) -> Array:
        """Squared Mahalanobis length."""
        _, std, along, _ = self._parts()
        scaled, pull = difference / std, along / std
        inner = jnp.sum(scaled * pull, axis=-1)
        return jnp.sum(scaled**2, axis=-1) - inner**2 / (1.0 + jnp.sum(pull**2, axis=-1))


class SoftmaxGaussian(DiagonalGaussian):
    """Shares as the softmax of independent normal latents, over the last axis.

    Everything but `action` is the Gaussian's: `mode` is the latent mean, whose softmax is neither
    the mode nor the mean of the shares. A common shift of a row's latents leaves its action alone.
    """

    def action(self, latent: Array) -> Array:
        """Shares float32[..., U]: they sum to 1 over the unmasked, and are exactly 0 elsewhere.

        A row without anybody unmasked is all 0.
        """
        if self.mask is None:
            return jax.nn.softmax(latent, axis=-1)
        present = jnp.broadcast_to(self.mask, jnp.shape(latent))
        # a finite filler: a row of -inf would be NaN before it is masked
        filler = jnp.finfo(jnp.float32).min
        return jnp.where(present, jax.nn.softmax(jnp.where(present, latent, filler)), 0.0)


class Categorical(struct.PyTreeNode):
    """One of A categories, or several such choices jointly; latent and action are the index.

    Logits may be any finite float32. The last `event_axes` axes of the logits form one event: with
    1 a single choice, with 2 the choices of all rows, and so on; the latent has one axis less. A
    choice without any category allowed does not exist: it has index 0 and contributes 0.

    Attributes:
      logits: float[..., A], unnormalised log-probabilities.
      mask: bool, broadcasts against `logits`; a False category has probability 0 and a
        log-probability of about -1e30 (finite). None for all allowed.
      event_axes: static, from 1 to the rank of `logits`.
    """

    logits: Array
    mask: Array | None = None
    event_axes: int = struct.field(pytree_node=False, default=1)

    def sample(self, key: Array) -> Array:
        """Draw the index of a category, int32[...] of the shape of `logits` less its last axis."""
        exists, categorical = self._parts()
        return jnp.where(exists, categorical.sample(seed=key), 0)

    def mode(self) -> Array:
        """The most probable category, the lowest of equals, int32 like a sample."""
        exists, categorical = self._parts()
        return jnp.where(exists, categorical.mode(), 0)

    def log_prob(self, latent: Array) -> Array:
        """Joint log-probability in nats; -inf for an index outside 0..A-1."""
        exists, categorical = self._parts()
        return self._total(exists, categorical.log_prob(latent))

    def entropy(self) -> Array:
        """Entropy in nats, at least 0."""
        exists, categorical = self._parts()
        return self._total(exists, categorical.entropy())

    def kl(self, other: Categorical) -> Array:
        """KL(self || other) in nats; `other` has the same mask."""
        exists, categorical = self._parts()
        return self._total(exists, categorical.kl_divergence(other._parts()[1]))

    def action(self, latent: Array) -> Array:
        """What the environment gets: the index as it is."""
        return latent

    def _parts(self) -> tuple[Array, distrax.Categorical]:
        """Which choices exist, and their distributions, uniform where they do not."""
        mask = True if self.mask is None else self.mask
        logits, allowed = jnp.broadcast_arrays(jnp.asarray(self.logits, jnp.float32), mask)
        _check_event(self.event_axes, logits)
        exists = jnp.any(allowed, axis=-1)
        logits = jnp.where(allowed, logits, 0.0)
        largest = jnp.max(
            jnp.where(allowed, logits, jnp.finfo(jnp.float32).min), axis=-1, keepdims=True
        )
        # relative to the largest, so that no logit is so low that a masked one is likelier
        logits = jnp.maximum(logits - jax.lax.stop_gradient(largest), _NEVER)
        logits = jnp.where(allowed, logits, _NEVER)
        return exists, distrax.Categorical(logits, dtype=jnp.int32)

    def _total(self, exists: Array, values: ArrayLike) -> Array:
        return jnp.sum(jnp.where(exists, values, 0.0), axis=tuple(range(1 - self.event_axes, 0)))


LatentDistribution = Categorical | DiagonalGaussian | SoftmaxGaussian
"""What a policy may return."""


def _check_event(event_axes: int, parameters: Array) -> None:
    if not 1 <= event_axes <= parameters.ndim:
        raise ValueError(
            f"event_axes must be from 1 to the parameters' {parameters.ndim} axes, "
            f"got {event_axes} for shape {parameters.shape}."
        )
