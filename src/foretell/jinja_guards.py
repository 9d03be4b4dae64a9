"""Jinja in which a template may ask of hidden texts only what can be told of them; what they are `jinja_marks` tells.

To ask for more, a text's length or its upper case, is an error."""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial, reduce, total_ordering, wraps
from types import GeneratorType
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace
from jinja2.visitor import NodeTransformer

from foretell.jinja_marks import ASCII, CLOSE, DIGITS, END, JSON, OPEN, PIECE, SAME, SHOWN

HIDDEN = re.compile(f"[{PIECE}-{ASCII}{DIGITS}{SHOWN}]")
_PIECE = re.compile(f"({PIECE}[^{SAME}]*){SAME}[^{JSON}{ASCII}{END}]*([{JSON}{ASCII}]*{END})")
_PIECES = re.compile(f"{PIECE}[^{END}]*{END}")
_ESCAPED = re.compile(f"[{JSON}{ASCII}]")

SEARCHES = {"split", "rsplit", "startswith", "endswith", "replace", "partition", "rpartition", "count", "removeprefix",
             "removesuffix"}  # fmt: skip
_STRIPS = {"strip", "lstrip", "rstrip"}
# Filters and tests that tell nothing of a text itself, and those that tell nothing of the texts in a list.
_BLIND = {"trim", "replace", "length", "count", "default", "d", "safe", "string", "tojson", "attr", "defined",
          "undefined", "none", "boolean", "false", "true", "integer", "mapping", "number", "sequence", "iterable",
          "callable", "sameas"}  # fmt: skip
_LISTS = {"join", "list", "first", "last", "reverse", "batch", "slice", "items", "map", "select", "selectattr",
          "reject", "rejectattr"}  # fmt: skip
_OPERATORS = {"eq": operator.eq, "ne": operator.ne, "gt": operator.gt, "gteq": operator.ge, "lt": operator.lt,
              "lteq": operator.le}  # fmt: skip
_FORMATS = re.compile(r"%[^s%]|\{[^{}]*[:!\[.]")  # what is more than putting a text in


class Refused(jinja2.TemplateError):
    """What the template says through raise_exception."""


class Unknown(jinja2.TemplateError):
    """The template asks what cannot be told of a hidden text."""


@total_ordering
class _Size:
    """How long a hidden text is: at least `least`."""

    def __init__(self, least: int) -> None:
        self._least = least

    def __ge__(self, other: Any) -> bool:
        if other > self._least:
            raise Unknown("length")
        return True

    def __eq__(self, other: object) -> bool:
        return not self >= other + 1  # type: ignore[operator]

    def _unknown(self, *_: Any) -> Any:
        raise Unknown("length")

    __str__ = __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __floordiv__ = __index__ = _unknown


def _hidden(value: Any) -> bool:
    """Whether a text of the conversation, or part of one, is in it."""
    if isinstance(value, str):
        return HIDDEN.search(value) is not None
    if isinstance(value, dict):
        return any(map(_hidden, value.items()))
    return isinstance(value, list | tuple) and any(map(_hidden, value))


def _text(value: Any) -> bool:
    return isinstance(value, str) and _hidden(value)


class _Namespace(Namespace):
    def __init__(*args: Any, **kwargs: Any) -> None:  # as Namespace, so that `self` may be a name too
        Namespace.__init__(*args, **kwargs)
        for name in dict(*args[1:], **kwargs):
            _check_name(name)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace attribute is called {name!r}")


class Guards(NodeTransformer):
    """Comparisons, slices and loops become calls that know of hidden texts."""

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        left, calls = node.expr, list[nodes.Expr]()
        for one in node.ops:
            calls.append(_guard(node, "compare", nodes.Const(one.op), left, one.expr))
            left = one.expr
        return reduce(lambda a, b: nodes.And(a, b, lineno=node.lineno), calls)

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        if not isinstance(found := node.arg, nodes.Slice):
            return node
        return _guard(
            node, "cut", node.node, *(one or nodes.Const(None) for one in (found.start, found.stop, found.step))
        )

    def visit_For(self, node: nodes.For) -> nodes.Node:
        self.generic_visit(node)
        node.iter = _guard(node, "walk", node.iter)
        return node

    def visit_ScopedEvalContextModifier(self, node: nodes.ScopedEvalContextModifier) -> nodes.Node:
        raise Unknown("autoescape")


def _guard(node: nodes.Node, name: str, *args: Any) -> nodes.Call:
    call = nodes.Call(nodes.EnvironmentAttribute(name), list(args), [], None, None)
    call.set_lineno(node.lineno)
    return call


class _Generation(Extension):
    """{% generation %}: what the assistant says, between OPEN and CLOSE."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_mark"), [], [], body).set_lineno(line)

    def _mark(self, caller: Callable[[], str]) -> str:
        return OPEN + caller() + CLOSE


class Environment(ImmutableSandboxedEnvironment):
    """As transformers sets it up for chat templates; what it asks about hidden texts is answered rightly or not at all.

    literals: what the template looks for in texts. alphabet: the characters they are made of, by their code.
    """

    intercepted_binops = frozenset({"%"})

    def __init__(self, literals: list[str], alphabet: str, now: datetime) -> None:
        super().__init__(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
        self._shown = {ord(char): chr(ord(SHOWN[0]) + i) for i, char in enumerate(alphabet)}
        self._plain = {ord(shown): chr(char) for char, shown in self._shown.items()}
        self._literals = frozenset(literals)
        self.constants: frozenset[str] = frozenset()
        self.globals |= {"namespace": _Namespace, "dict": lambda *args, **kwargs: dict(*args, **kwargs)}
        self.globals |= {"raise_exception": _refuse, "strftime_now": now.strftime}
        self.filters |= {"tojson": _tojson, "replace": self._replace, "length": _length, "count": _length}
        self.filters = {name: _guarded(name, act) for name, act in self.filters.items()}
        tests: dict[str, Any] = {**self.tests}
        compares: dict[Any, str] = {act: name for name, act in _OPERATORS.items()} | {tests["in"]: "in"}
        tests |= {
            name: partial(self.compare, compares[act]) if act in compares else _guarded(name, act)
            for name, act in tests.items()
        }
        self.tests = tests

    def _needle(self, text: Any, needle: Any) -> Any:
        """`needle` as it stands in `text`."""
        if isinstance(needle, tuple | list):
            return type(needle)(self._needle(text, one) for one in needle)
        if not isinstance(needle, str) or not (_hidden(text) or _hidden(needle)):
            return needle
        found = needle.translate(self._shown)
        across = any(
            needle[:i].strip() and needle[i:].strip() and re.search(
                f"{re.escape(needle[:i])}[{PIECE}{SHOWN}]|[{END}{SHOWN}]{re.escape(needle[i:])}", text
            )
            for i in range(1, len(needle))
        )  # fmt: skip
        if (needle.strip() or needle) not in self._literals or _hidden(needle) or _ESCAPED.search(text) or across:
            raise Unknown(f"search for {needle!r}")
        if found == needle or needle not in text:
            return found
        if found in text:
            raise Unknown(f"search for {needle!r}")
        return needle

    def compare(self, op: str, left: Any, right: Any) -> bool:
        if op in ("in", "notin"):
            return self._contains(left, right) == (op == "in")
        if not (_hidden(left) or _hidden(right)):
            return bool(_OPERATORS[op](left, right))
        if op in ("eq", "ne"):
            return self._equal(left, right) == (op == "eq")
        raise Unknown(f"comparison of texts ({op})")

    def _contains(self, needle: Any, found: Any) -> bool:
        found = list(found) if isinstance(found, GeneratorType) else found
        if isinstance(found, list | tuple | dict) and (_hidden(needle) or _hidden(found)):
            return any(self._equal(needle, one) for one in found)
        return self._needle(found, needle) in found

    def _equal(self, left: Any, right: Any) -> bool:
        if not (_hidden(left) or _hidden(right)):
            return bool(left == right)
        if isinstance(left, dict) and isinstance(right, dict):
            left, right = list(left.items()), list(right.items())
        if isinstance(left, list | tuple) and type(left) is type(right):
            return len(left) == len(right) and all(map(self._equal, left, right))
        if not (isinstance(left, str) and isinstance(right, str)):
            return False
        one, other = (_PIECE.sub(r"\1\2", text.translate(self._plain)) for text in (left, right))
        if one == other:
            return True
        if PIECE in one and PIECE in other:  # of equal texts the marks are equal
            known = not HIDDEN.sub("", one + other).strip()
        else:
            text, whole = (one, other) if PIECE in one else (other, one)
            first, *rest = _PIECES.split(text)
            fits = rest and len(_PIECES.sub("x", text)) <= len(whole) and whole.startswith(first)
            alone = len(rest) == 1 and not (first + rest[0]).strip() and whole.strip() in self.constants
            known = not fits or not whole.endswith(rest[-1]) or alone
        if not known or _ESCAPED.search(one + other):
            raise Unknown("comparison of texts")
        return False

    def _replace(self, text: Any, old: Any, new: Any, count: int = -1) -> str:
        return str(text).replace(self._needle(text, str(old)), str(new), count)

    def cut(self, found: Any, start: Any, stop: Any, step: Any) -> Any:
        """A slice; of a hidden text, only of what the template wrote around it."""
        if _text(found):
            plain = [next(HIDDEN.finditer(text)).start() for text in (found, found[::-1])]
            if step is not None or any(at is not None and not -plain[1] <= at <= plain[0] for at in (start, stop)):
                raise Unknown("slice")
        return found[start:stop:step]

    def walk(self, found: Any) -> Any:
        if _text(found):
            raise Unknown("loop over letters")
        return found

    def getitem(self, obj: Any, argument: Any) -> Any:
        if _text(obj) and isinstance(argument, int):
            return self.cut(obj, argument, argument + 1 or None, None)
        if isinstance(obj, dict) and argument not in obj and _hidden([argument, *obj]):
            argument = next((key for key in obj if self._equal(key, argument)), argument)
        return super().getitem(obj, argument)

    def getattr(self, obj: Any, attribute: str) -> Any:
        inside = isinstance(obj, dict) and not hasattr(obj, attribute)
        return self.getitem(obj, attribute) if inside else super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str) and (_hidden(left) or (_hidden(right) and _FORMATS.search(left))):
            raise Unknown("format")
        return super().call_binop(context, operator, left, right)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:
        text = getattr(getattr(__obj, "__wrapped__", __obj), "__self__", None)  # the sandbox wraps str.format
        name = getattr(__obj, "__name__", "")
        held = [*args, *(one for key, one in kwargs.items() if not key.startswith("_"))]  # Jinja adds its own
        if isinstance(text, str) and (_hidden(text) or _hidden(held)):
            if name in SEARCHES and held and (held[0] is not None or not _hidden(text)):
                args = (*(__self._needle(text, one) for one in args[:1]), *args[1:])
                kwargs = {key: __self._needle(text, one) for key, one in kwargs.items()}
            elif name in _STRIPS:
                _check_strip(name, text, held)
            elif (
                _hidden(text)
                or name not in ("join", "format")
                or (any(map(_text, held)) if name == "join" else _FORMATS.search(text))
            ):
                raise Unknown(name)
        elif isinstance(text, LoopContext | dict | list | tuple) and (
            _hidden(held[:1]) or (name == "get" and _hidden([*text]))
        ):
            raise Unknown(name)
        return super().call(__context, __obj, *args, **kwargs)


def _guarded(name: str, act: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or test that is not given what it cannot know."""

    @wraps(act)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        args = tuple(list(one) if isinstance(one, GeneratorType) else one for one in args)
        held = [*args, *kwargs.values()]
        if name == "trim":
            _check_strip(name, held[0], held[1:])
        elif name == "dictsort":
            held = [list(held[0]) if isinstance(held[0], dict) else held[0]]
        elif name == "format" and not _FORMATS.search(str(held[0])):
            held = held[:1]
        ordered = name == "tojson" and kwargs.get("sort_keys")
        if (name not in _BLIND or ordered) and any(map(_text if name in _LISTS else _hidden, held)):
            raise Unknown(name)
        return act(*args, **kwargs)

    return guarded


def _check_strip(name: str, text: Any, chars: Sequence[Any]) -> None:
    if (_hidden(text) or _hidden(chars)) and any(isinstance(one, str) and one.strip() for one in chars):
        raise Unknown(name)


def _length(value: Any) -> Any:
    return _Size(len(_ESCAPED.sub("", _PIECES.sub("x", value)))) if _text(value) else len(value)


def _refuse(message: Any) -> None:
    raise Refused(str(message))


def _tojson(value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None,
            sort_keys: bool = False) -> str:  # fmt: skip
    text = json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
    text = re.sub(r"\\u(fd[de][0-9]|e[0-9a-f]{3}|f[0-8][0-9a-f]{2})", lambda found: chr(int(found[1], 16)), text)
    step = ASCII if ensure_ascii else JSON
    return re.sub(rf"(?={END})|[{SHOWN}][{JSON}{ASCII}]*", lambda found: found[0] + step, text)
