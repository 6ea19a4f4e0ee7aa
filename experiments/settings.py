"""Settings: nested frozen dataclasses, as dotted names and as plain values of a YAML file."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from experiments.names import UsageError, unknown

Config = TypeVar("Config")

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    Path: "a path",
    type(None): "null",
}


def option_types(kind: type) -> dict[str, Any]:
    """Return the type of every option of a configuration class, by dotted name."""
    found: dict[str, Any] = {}
    for name, annotation in _fields(kind).items():
        if _is_section(annotation):
            inner = option_types(annotation)
            found.update({f"{name}.{key}": value for key, value in inner.items()})
        else:
            found[name] = annotation
    return found


def flatten(config: Any) -> dict[str, Any]:
    """Return the value of every option by dotted name."""
    found: dict[str, Any] = {}
    for name in option_types(type(config)):
        value = config
        for part in name.split("."):
            value = getattr(value, part)
        found[name] = value
    return found


def replace(config: Config, values: Mapping[str, Any]) -> Config:
    """Return `config` with other values for some options, given by dotted name.

    Raises:
        ValueError: what the configuration class says about the new values.
    """
    changes: dict[str, Any] = {}
    sections: dict[str, dict[str, Any]] = {}
    for name, value in values.items():
        head, dot, rest = name.partition(".")
        if dot:
            sections.setdefault(head, {})[rest] = value
        else:
            changes[head] = value
    for head, inner in sections.items():
        changes[head] = replace(getattr(config, head), inner)
    return dataclasses.replace(typing.cast(Any, config), **changes)


def to_plain(config: Any) -> dict[str, Any]:
    """Return a configuration as `from_plain` reads it: nested dicts, lists, numbers and text."""
    plain = {}
    for name in _fields(type(config)):
        value = getattr(config, name)
        plain[name] = to_plain(value) if dataclasses.is_dataclass(value) else plain_value(value)
    return plain


def plain_value(value: Any) -> Any:
    """Return the value of an option as YAML holds it."""
    if isinstance(value, tuple):
        return [plain_value(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def from_plain(kind: type[Config], plain: Any, where: str) -> Config:
    """Build a configuration from nested plain values; what is left out keeps its default.

    Args:
        kind: the configuration class.
        plain: as YAML gives it.
        where: named at the start of every error, such as the file.

    Raises:
        UsageError: an unknown or missing option, or a value of the wrong type or out of range.
    """
    return _section(kind, plain, where, "", None, _names(kind))


def convert(annotation: Any, value: Any, name: str) -> Any:
    """Return a plain value as an option of type `annotation`.

    Raises:
        UsageError: it is not one; names the option and what was expected.
    """
    try:
        return _convert(annotation, value)
    except ValueError:
        expected = describe(annotation)
        raise UsageError(f"{name} must be {expected}, got {value!r}.") from None


def describe(annotation: Any) -> str:
    """Return in words what an option of type `annotation` holds.

    Raises:
        ValueError: options cannot have this type.
    """
    arguments = typing.get_args(annotation)
    if annotation in _WORDS:
        return _WORDS[annotation]
    if typing.get_origin(annotation) is Literal:
        return " or ".join(repr(choice) for choice in arguments)
    if _is_union(annotation):
        return " or ".join(describe(choice) for choice in arguments)
    if typing.get_origin(annotation) is tuple and arguments:
        if arguments[1:] == (...,):
            return f"a list, each item {describe(arguments[0])}"
        return f"a list of {', '.join(describe(item) for item in arguments)}"
    raise ValueError(
        f"an option cannot have the type {annotation}; it may be bool, int, float, str, Path, a "
        "Literal, a tuple or a union of these, or a dataclass for a section"
    )


def _section(
    kind: type[Config], plain: Any, where: str, prefix: str, base: Any, known: list[str]
) -> Config:
    if not isinstance(plain, dict):
        label = prefix.removesuffix(".") or "options"
        raise UsageError(f"{where}: {label} must hold named values, got {plain!r}.")
    annotations = _fields(kind)
    for key in plain:
        if key not in annotations:
            raise unknown(f"option in {where}:", f"{prefix}{key}", known)
    values: dict[str, Any] = {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        if field.name not in annotations:
            continue
        name, annotation = f"{prefix}{field.name}", annotations[field.name]
        default = _default(field) if base is None else getattr(base, field.name)
        missing = default is dataclasses.MISSING
        if _is_section(annotation):
            # a section given in part keeps what its own default says of the rest
            section = None if missing else default
            given = plain.get(field.name, {})
            values[field.name] = _section(annotation, given, where, f"{name}.", section, known)
        elif field.name in plain:
            values[field.name] = convert(annotation, plain[field.name], f"{where}: {name}")
        elif missing:
            raise UsageError(f"{where} must give {name}: {describe(annotation)}.")
        else:
            values[field.name] = default
    try:
        return kind(**values)
    except ValueError as error:
        raise UsageError(f"{where}: {prefix.removesuffix('.') or 'options'}: {error}") from error


def _convert(annotation: Any, value: Any) -> Any:
    """Raise ValueError where `value` is not of the type."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation is float and type(value) in (int, float, str):
        return float(value)  # YAML 1.1 reads 1e-4, without a point, as text
    if annotation is Path and isinstance(value, str):
        return Path(value)
    # True is an int to Python, not to who writes a file
    if annotation in _WORDS and type(value) is annotation:
        return value
    if origin is Literal:
        for choice in arguments:
            if type(choice) is type(value) and choice == value:
                return choice
    if _is_union(annotation):
        for choice in arguments:
            try:
                return _convert(choice, value)
            except ValueError:
                continue
    if origin is tuple and isinstance(value, list):
        variadic = arguments[1:] == (...,)
        items = arguments[:1] * len(value) if variadic else arguments
        return tuple(_convert(item, part) for item, part in zip(items, value, strict=True))
    raise ValueError


def _fields(kind: type) -> dict[str, Any]:
    """Types of the fields that a configuration class is made with."""
    annotations = typing.get_type_hints(kind)
    fields = dataclasses.fields(typing.cast(Any, kind))
    return {field.name: annotations[field.name] for field in fields if field.init}


def _names(kind: type) -> list[str]:
    """Dotted names of the options and of the sections that hold them."""
    names = []
    for name in option_types(kind):
        parts = name.split(".")
        names += [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    return list(dict.fromkeys(names))


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _is_section(annotation: Any) -> bool:
    return isinstance(annotation, type) and dataclasses.is_dataclass(annotation)


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (Union, types.UnionType)
