"""Replies bound to a grammar: which tokens may come next, by llguidance.

A grammar comes from outside, so its size and the work it may cause are bounded, and it is compiled before its request
takes part in a batch.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from foretell.errors import GrammarError, MissingExtraError
from foretell.generate import Grammar

if TYPE_CHECKING:
    from foretell.data.tokenizer import Tokenizer

_LONGEST = 100_000  # characters of a grammar
_DEEPEST = 64  # levels of a JSON schema
_COMPILED = 64  # kept
_SECONDS, _MEMORY = 1, 1 << 30  # of processor and of address space, to read one
_TRY = f"""
import sys
try:
    import resource
    resource.setrlimit(resource.RLIMIT_CPU, ({_SECONDS}, {_SECONDS}))
    resource.setrlimit(resource.RLIMIT_AS, ({_MEMORY}, {_MEMORY}))
except ImportError:
    pass
import llguidance
matcher = llguidance.LLMatcher(llguidance.LLTokenizer("byte"), sys.stdin.buffer.read().decode(), log_level=0)
matcher.compute_bitmask()
"""
_NAMES = {"json_schema": "JSON schema", "regex": "regular expression", "lark": "Lark grammar"}


class Constraint:
    """One reply's place in its grammar."""

    def __init__(self, matcher: Any, size: int) -> None:
        self._matcher, self._size = matcher, size

    def copy(self) -> Constraint:
        return Constraint(self._matcher.deep_copy(), self._size)

    def mask(self) -> Tensor:
        """Which tokens may come next, (V,) bool; none where the grammar cannot go on."""
        if self._matcher.is_error():
            return torch.zeros(self._size, dtype=torch.bool)
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        mask = torch.zeros(self._size, dtype=torch.bool)
        found = torch.from_numpy(np.unpackbits(bits, bitorder="little")[: self._size].astype(np.bool_))
        mask[: len(found)] = found
        if self._matcher.is_error():  # a limit was met
            mask.zero_()
        return mask

    def push(self, token: int) -> None:
        self._matcher.consume_token(token)


class Constrainer:
    """Compiles grammars for one tokenizer, and remembers the latest. Safe to share between threads.

    size: ids that the model's logits have.
    """

    def __init__(self, tokenizer: Tokenizer, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size
        self._lock = threading.Lock()
        self._table: Any = None
        self._compiled: OrderedDict[Grammar, Constraint] = OrderedDict()

    def open(self, grammar: Grammar) -> Constraint:
        """A constraint at its start, to be copied for each reply; compiling may take a second. Raises GrammarError for
        a grammar that is damaged or too large, MissingExtraError without llguidance."""
        with self._lock:
            compiled = self._compiled.get(grammar)
        if compiled is None:
            compiled = Constraint(self._compile(grammar), self._size)
        with self._lock:
            self._compiled[grammar] = compiled
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > _COMPILED:
                self._compiled.popitem(last=False)
        return compiled

    def _compile(self, grammar: Grammar) -> Any:
        try:
            import llguidance
        except ModuleNotFoundError as error:
            raise MissingExtraError("Binding replies to a grammar", "serve") from error
        kind = _NAMES[grammar.kind]
        if len(grammar.text) > _LONGEST:
            raise GrammarError(
                f"The {kind} has {len(grammar.text)} characters; at most {_LONGEST} are allowed. Make it smaller."
            )
        with self._lock:
            self._table = self._table or llguidance.LLTokenizer(
                llguidance.TokenizerWrapper(_Words(self._tokenizer)), slices=[]
            )
        limits = llguidance.LLParserLimits(
            max_items_in_row=2_000,
            initial_lexer_fuel=1_000_000,
            step_lexer_fuel=200_000,
            step_max_items=50_000,
            max_lexer_states=100_000,
            max_grammar_size=200_000,
            verbose_errors=False,
        )
        text = _checked(grammar.text) if grammar.kind == "json_schema" else grammar.text
        text = getattr(llguidance.LLMatcher, f"grammar_from_{grammar.kind}")(text)
        if not _bearable(text):
            raise GrammarError(
                f"The {kind} takes more than {_SECONDS} s or {_MEMORY >> 20} MB to be read. Make it smaller: nested "
                "counted repetitions multiply."
            )
        matcher = llguidance.LLMatcher(self._table, text, log_level=0, limits=limits)
        for tried in (matcher, matcher.deep_copy()):  # the first steps take longest, and show whether limits hold
            allowed = Constraint(tried, self._size).mask().nonzero()
            if tried is not matcher and len(allowed):
                tried.consume_token(int(allowed[0]))
                tried.compute_bitmask()
            if tried.is_error():
                raise GrammarError(f"The {kind} cannot be used: {_brief(tried.get_error())}. Mend or shrink it.")
        return matcher


class _Words:
    """Our tokenizer in the form that llguidance reads. Control tokens, and ids that stand for nothing, are named by a
    byte that no text holds, so that no grammar matches them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        spelled = [tokenizer.decode_bytes([i]) for i in range(tokenizer.vocab_size)]
        self.tokens = [piece or b"\xff<%d>" % i for i, piece in enumerate(spelled)]
        self.special_token_ids = [i for i, piece in enumerate(spelled) if not piece]
        self.eos_token_id = min(tokenizer.ends, default=0)
        self.bos_token_id = None
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        return self._tokenizer.encode_inside(text if isinstance(text, str) else text.decode("utf-8", "replace"))


def _bearable(text: str) -> bool:
    """Whether a grammar can be read within limits, tried in a process of its own: the library does not bound the size
    of what repetitions stand for, and a thread that reads it cannot be stopped."""
    tried = subprocess.run([sys.executable, "-I", "-c", _TRY], input=text.encode(), capture_output=True, check=False)
    return tried.returncode == 0


def _checked(text: str) -> str:
    """A JSON schema that is one, and not too deep."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise GrammarError(f"The JSON schema is not JSON: {error}. Mend it.") from error
    if not isinstance(schema, dict | bool):
        raise GrammarError(f"The JSON schema is a {type(schema).__name__}; expected an object. Mend it.")
    level = [schema]
    for _ in range(_DEEPEST):
        inner = [part for part in level if isinstance(part, dict | list)]
        level = [each for part in inner for each in (part.values() if isinstance(part, dict) else part)]
        if not level:
            return text
    raise GrammarError(f"The JSON schema is more than {_DEEPEST} levels deep. Make it flatter.")


def _brief(error: object) -> str:
    return " ".join(str(error).split())[:300].rstrip(".")
