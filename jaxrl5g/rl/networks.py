"""Small networks: a plain one, one equivariant under permutations of users, one invariant.

The two for sets see each element and a summary of all (mean and maximum over the unmasked), so
they serve any number of elements and never see the padding. Weights start with variance
2 / fan-in, the last layer's with a gain of its own, and biases at 0 (Andrychowicz et al., What
matters in on-policy reinforcement learning, 2021, for the small last layer of a policy). Source:
Zaheer et al., Deep sets (2017), theorem 2 and lemma 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import jax.numpy as jnp
from flax import linen as nn
from jax import Array
from jax.nn.initializers import Initializer, variance_scaling, zeros

ACTIVATIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": nn.tanh,
    "relu": nn.relu,
    "silu": nn.silu,
    "gelu": nn.gelu,
}
"""Activations by name."""

_HIDDEN_GAIN = math.sqrt(2)


class MLP(nn.Module):
    """Dense layers with an activation between them and none after the last.

    Attributes:
      features: widths of all layers, the output's included; at least one.
      activation: a name in `ACTIVATIONS`.
      final_scale: gain of the last layer.

    Maps float[..., F] to float32[..., features[-1]]. Raises ValueError for no features or an
    unknown activation.
    """

    features: Sequence[int]
    activation: str = "tanh"
    final_scale: float = 1.0

    @nn.compact
    def __call__(self, inputs: Array) -> Array:
        """Apply the layers to float[..., F]."""
        _check_features(self.features, 1)
        activate = _activation(self.activation)
        hidden = inputs
        for width in self.features[:-1]:
            hidden = activate(_dense(width, _HIDDEN_GAIN)(hidden))
        return _dense(self.features[-1], self.final_scale)(hidden)


class Equivariant(nn.Module):
    """A value per element that depends on the element and, symmetrically, on all others.

    The first layer sees each element alone; every later one sees its element, the mean and the
    maximum of the layer before over the unmasked elements, and `context`; the output is linear in
    the last. Permuting elements permutes the output. Masked elements are not read, influence
    nothing, and have output exactly 0.

    Attributes:
      features: widths of the hidden layers; at least two, or none for the linear map alone.
      out: values per element.
      activation: a name in `ACTIVATIONS`.
      final_scale: gain of the output layer; small, so that a policy starts near output 0.
      linear: add a linear map of the element itself to the output, of the same gain: what is a
        multiple of an input need not be built from bounded activations.
    """

    features: Sequence[int]
    out: int
    activation: str = "tanh"
    final_scale: float = 0.01
    linear: bool = False

    @nn.compact
    def __call__(
        self, elements: Array, mask: Array | None = None, context: Array | None = None
    ) -> Array:
        """Apply the network.

        Args:
          elements: float[..., U, F].
          mask: bool[..., U]; None for all present. With none present the output is 0.
          context: float[..., G], what all elements share; optional.

        Returns:
          float32[..., U, out].

        Raises:
          ValueError: fewer than two features (none, without `linear`), an unknown activation, or
            shapes that do not fit.
        """
        elements, present = _present(elements, mask)
        output = jnp.float32(0.0)
        if self.features or not self.linear:
            _check_features(self.features, 2)
            activate = _activation(self.activation)
            hidden = activate(_dense(self.features[0], _HIDDEN_GAIN)(elements))
            for width in self.features[1:]:
                shared = _pool(hidden, present, context)
                hidden = activate(_ElementLayer(width)(hidden, shared))
            output = _dense(self.out, self.final_scale)(hidden)
        if self.linear:
            weights = _weights(self.final_scale)
            output += nn.Dense(self.out, use_bias=False, kernel_init=weights, name="linear")(
                elements
            )
        return jnp.where(present[..., None], output, 0.0)


class Pooled(nn.Module):
    """One number for a set of elements, whatever their order: a critic.

    Each element is embedded on its own; the mean and the maximum over the unmasked, with
    `context`, go through an `MLP`. Masked elements are not read.

    Attributes:
      features: width of the embedding, then of the MLP's hidden layers; at least one.
      activation: a name in `ACTIVATIONS`.
      final_scale: gain of the output layer.
    """

    features: Sequence[int]
    activation: str = "tanh"
    final_scale: float = 1.0

    @nn.compact
    def __call__(
        self, elements: Array, mask: Array | None = None, context: Array | None = None
    ) -> Array:
        """Apply the network.

        Args:
          elements: float[..., U, F].
          mask: bool[..., U]; None for all present. With none present the set reads as one of
            pooled embedding 0.
          context: float[..., G], what all elements share; optional.

        Returns:
          float32[...].

        Raises:
          ValueError: no features, an unknown activation, or shapes that do not fit.
        """
        _check_features(self.features, 1)
        activate = _activation(self.activation)
        elements, present = _present(elements, mask)
        hidden = activate(_dense(self.features[0], _HIDDEN_GAIN)(elements))
        head = MLP((*self.features[1:], 1), self.activation, self.final_scale)
        return head(_pool(hidden, present, context))[..., 0]


class _ElementLayer(nn.Module):
    """A dense layer on [element, shared], the shared part multiplied once a set."""

    width: int

    @nn.compact
    def __call__(self, hidden: Array, shared: Array) -> Array:
        split, rest = hidden.shape[-1], shared.shape[-1]
        kernel = self.param("kernel", _weights(_HIDDEN_GAIN), (split + rest, self.width))
        bias = self.param("bias", zeros, (self.width,))
        return hidden @ kernel[:split] + (shared @ kernel[split:] + bias)[..., None, :]


def _weights(gain: float) -> Initializer:
    # not orthogonal: several batched QR factorisations in one program, as vmapped seeds make them,
    # wait for each other for ever on a CPU (JAX 0.10.2)
    return variance_scaling(gain**2, "fan_in", "truncated_normal")


def _dense(width: int, gain: float) -> nn.Dense:
    return nn.Dense(width, kernel_init=_weights(gain), bias_init=zeros)


def _present(elements: Array, mask: Array | None) -> tuple[Array, Array]:
    """Elements in float32 with zeros for the masked, and the mask."""
    if jnp.ndim(elements) < 2:
        raise ValueError(f"elements must be [..., U, F], got shape {jnp.shape(elements)}.")
    shape = elements.shape[:-1]
    mask = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask, bool)
    if mask.shape != shape:
        raise ValueError(f"mask of shape {mask.shape} does not fit elements {elements.shape}.")
    return jnp.where(mask[..., None], elements.astype(jnp.float32), 0.0), mask


def _pool(hidden: Array, present: Array, context: Array | None) -> Array:
    """Mean and maximum over the elements present, 0 if there are none, then the context."""
    each = present[..., None]
    count = jnp.maximum(jnp.sum(each, axis=-2), 1)
    mean = jnp.sum(jnp.where(each, hidden, 0.0), axis=-2) / count
    lowest = jnp.finfo(hidden.dtype).min
    largest = jnp.max(jnp.where(each, hidden, lowest), axis=-2)
    largest = jnp.where(jnp.any(each, axis=-2), largest, 0.0)
    if context is None:
        return jnp.concatenate([mean, largest], axis=-1)
    if context.shape[:-1] != mean.shape[:-1]:
        raise ValueError(
            f"context of shape {context.shape} must be [..., G] with the elements' "
            f"leading axes {mean.shape[:-1]}."
        )
    return jnp.concatenate([mean, largest, context.astype(jnp.float32)], axis=-1)


def _activation(name: str) -> Callable[[Array], Array]:
    if name not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {name!r}.")
    return ACTIVATIONS[name]


def _check_features(features: Sequence[int], least: int) -> None:
    if len(features) < least:
        raise ValueError(f"features must name at least {least} layers, got {tuple(features)}.")
