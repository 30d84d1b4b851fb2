"""Looks at live modules, classes and functions by name, without calling any of them."""

from __future__ import annotations

import dis
import importlib
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType

ABSENT = object()
"""What `find` returns where there is nothing."""


def find(target: str) -> object:
    """Return what a name leads to.

    Args:
        target: `module:path`; the last part may be an attribute that only a class's instances have.

    Returns:
        The object, as it stands in its class's dictionary; None for an attribute of instances; `ABSENT` for nothing.
    """
    module, _, path = target.partition(":")
    try:
        found: object = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module}.".startswith(f"{error.name}."):
            return ABSENT
        raise  # the module is there, and something that it needs is not
    for name in path.split("."):
        owner, found = found, _member(found, name)
        if found is ABSENT:
            return None if not isinstance(owner, ModuleType) and has_attribute(owner, name) else ABSENT
    return found


def _member(owner: object, name: str) -> object:
    if isinstance(owner, ModuleType):
        return getattr(owner, name, ABSENT)  # some modules make their names when asked
    return inspect.getattr_static(owner, name, ABSENT)


def has_attribute(owner: object, name: str) -> bool:
    """Return whether a class, its instances, or another object have an attribute.

    Args:
        owner: A class, or an object whose class is looked at too.
        name: The attribute; an annotation counts, and so does any function of the class that sets it on an object.

    Returns:
        Whether there is one.
    """
    if inspect.getattr_static(owner, name, ABSENT) is not ABSENT:
        return True
    kind = owner if isinstance(owner, type) else type(owner)
    return any(name in vars(one).get("__annotations__", {}) or _is_set(one, name) for one in kind.__mro__)


def _is_set(kind: type, name: str) -> bool:
    codes = (code for member in vars(kind).values() for code in _codes(member))
    return any(
        step.opname == "STORE_ATTR" and step.argval == name
        for code in codes
        if name in code.co_names
        for step in dis.get_instructions(code)
    )


def parameters_of(found: object) -> tuple[str, ...] | None:
    """Return the names of a function's or class's parameters without `self`, or None for what cannot be called."""
    function = _function(found)
    if function is None and not isinstance(found, type):
        return None
    names = tuple(inspect.signature(function or found).parameters)  # type: ignore[arg-type]
    return names[1:] if names[:1] in {("self",), ("cls",)} else names


def names_in(found: object) -> frozenset[str]:
    """Return the names and texts that the code of a function, property or class method uses."""
    return frozenset(
        name
        for code in _codes(found)
        for name in (*code.co_names, *(text for text in code.co_consts if isinstance(text, str)))
    )


def _codes(found: object) -> Iterator[CodeType]:
    function = _function(found)
    if function is not None:
        pending = [function.__code__]
        while pending:
            code = pending.pop()
            yield code
            pending.extend(part for part in code.co_consts if isinstance(part, CodeType))


def _function(found: object) -> FunctionType | None:
    if isinstance(found, staticmethod | classmethod):
        found = found.__func__
    if isinstance(found, property):
        return None if found.fget is None else _function(found.fget)
    found = inspect.unwrap(found) if callable(found) and not isinstance(found, type) else found
    return found if isinstance(found, FunctionType) else None
