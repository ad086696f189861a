"""Check the types of values that come from a file."""

import types
from typing import Any, TypeGuard, TypeVar, Union, get_args, get_origin, overload

T = TypeVar("T")


@overload
def fits(value: Any, kind: type[T]) -> TypeGuard[T]: ...


@overload
def fits(value: Any, kind: Any) -> bool: ...


def fits(value: Any, kind: Any) -> bool:
    """Return True if ``value``, of plain containers, has the type ``kind``.

    kind: a class, ``Any``, a union, or ``dict`` and ``list`` with the types of their items, such as
    ``dict[str, list[int]]``. As for type checkers, an int is a float; but a bool is neither.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return True
    if origin in (Union, types.UnionType):
        return any(fits(value, each) for each in inner)
    if origin is dict:
        return isinstance(value, dict) and all(
            fits(key, inner[0]) and fits(item, inner[1]) for key, item in value.items()
        )
    if origin is list:
        return isinstance(value, list) and all(fits(item, inner[0]) for item in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)
