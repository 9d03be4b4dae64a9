"""What goes between the processes of a sandbox: frames of length and JSON, and plain data in them.

On the standard library alone; see `sandbox_runner`.
"""

import collections.abc
import json
import os
import struct
import typing


def pack(value: typing.Any) -> typing.Any:
    """Plain data as JSON that tells its types apart. TypeError for what is not plain data."""
    if value is None or isinstance(value, bool | float | str):
        return value
    if isinstance(value, int):  # Python refuses to write very long ones in decimal
        return value if value.bit_length() < 10_000 else {"int": hex(value)}
    if isinstance(value, list):
        return [pack(item) for item in value]
    if isinstance(value, dict):
        return {"dict": [[pack(key), pack(item)] for key, item in value.items()]}
    for kind in (tuple, set, frozenset):
        if isinstance(value, kind):
            return {kind.__name__: [pack(item) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {type(value).__name__: list(value)}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, collections.abc.Iterable):
        return {"iter": [pack(item) for item in value]}
    raise TypeError(f"a value of type {type(value).__name__} cannot leave its process")


_KINDS: dict[str, typing.Callable[[typing.Any], typing.Any]] = {
    **{kind.__name__: kind for kind in (tuple, set, frozenset, dict, bytes, bytearray, iter)},
    "complex": lambda parts: complex(*parts),
}


def unpack(packed: typing.Any) -> typing.Any:
    """The inverse: builds nothing but plain data, whatever is given."""
    if isinstance(packed, list):
        return [unpack(item) for item in packed]
    if not isinstance(packed, dict):
        return packed
    ((kind, parts),) = packed.items()
    return int(parts, 16) if kind == "int" else _KINDS[kind](unpack(parts))


def write(number: int, data: bytes) -> None:
    """All of it, on a file descriptor."""
    while data:
        data = data[os.write(number, data) :]


def _received(number: int, count: int) -> bytes:
    data = b""
    while len(data) < count and (chunk := os.read(number, count - len(data))):
        data += chunk
    return data


def send(frame: dict[str, typing.Any], number: int) -> None:
    """A frame: its length, and JSON."""
    data = json.dumps(frame).encode()
    write(number, struct.pack("=I", len(data)) + data)


def frame_of(number: int, limit: int = 1 << 32) -> typing.Any:
    """What was sent; None at the end. OverflowError where it is longer than the limit."""
    if len(head := _received(number, 4)) < 4:
        return None
    (size,) = struct.unpack("=I", head)
    if size > limit:
        raise OverflowError
    return json.loads(_received(number, size))
