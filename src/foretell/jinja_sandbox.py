"""Runs a chat template of unknown origin. A program of its own, since limits hold only for a whole process.

Its argument is the processor time it may take, in seconds. It reads one job as JSON and writes one answer. It never
sees what messages say, only the marks of `jinja_marks`.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError

from foretell.jinja_guards import SEARCHES, Environment, Guards, Refused, Unknown
from foretell.jinja_marks import END, PIECE, SAME

MEMORY, OUTPUT = 512 << 20, 4_000_000  # bytes; characters


def _searched(tree: nodes.Template) -> Iterator[str]:
    """Texts that the template looks for in others, as far as they stand in it."""
    for call in tree.find_all(nodes.Call):
        if isinstance(call.node, nodes.Getattr) and call.node.attr in SEARCHES:
            yield from _constants(call.args)
    for found in tree.find_all(nodes.Filter):
        if found.name == "replace":
            yield from _constants(found.args)
    for compare in tree.find_all(nodes.Compare):
        if any(one.op in ("in", "notin") for one in compare.ops):
            yield from _constants([compare.expr])
    for assign in tree.find_all(nodes.Assign):
        if any(not char.isalnum() for char in "".join(_constants([assign.node])).strip()):
            yield from _constants([assign.node])


def _constants(found: Sequence[nodes.Node]) -> Iterator[str]:
    for node in found:
        if isinstance(node, nodes.Const) and isinstance(node.value, str):
            yield node.value.strip() or node.value
        elif isinstance(node, nodes.Tuple | nodes.List):
            yield from _constants(node.items)


def _render(template: jinja2.Template, variables: dict[str, Any]) -> str:
    chunks, size = [], 0
    for chunk in template.generate(**variables):
        size += len(chunk)
        if size > OUTPUT:
            raise MemoryError
        chunks.append(chunk)
    return "".join(chunks)


def _describe(environment: Environment, tree: nodes.Template, variables: dict[str, Any]) -> dict[str, Any]:
    """What the template looks for, what else it may compare texts with, and whether a message's content is to be a
    string or a list of parts."""
    literals = sorted({*_searched(tree)} - {""}, key=len, reverse=True)
    template, mark = _compile(environment, tree), f"{PIECE}\ufde0{SAME}\ufde0{END}"  # which changes the tree
    forms: dict[str, Any] = {"string": mark, "parts": [{"type": "text", "text": mark}]}
    shown = []
    for form, content in forms.items():
        with suppress(Exception):
            if mark in _render(template, variables | {"messages": [{"role": "user", "content": content}]}):
                shown.append(form)
    dated = any(name.name == "strftime_now" for name in tree.find_all(nodes.Name))
    about = {"literals": literals, "constants": sorted(environment.constants), "dated": dated}
    return about | {"content": (shown or ["string"])[0]}


def _compile(environment: Environment, tree: nodes.Template) -> jinja2.Template:
    environment.constants = frozenset(_constants(list(tree.find_all(nodes.Const))))
    changed = Guards().visit(tree)
    return jinja2.Template.from_code(environment, environment.compile(changed), dict(environment.globals))


def answer(job: dict[str, Any]) -> dict[str, Any]:
    """job: template, literals, alphabet, now, variables; without messages among these, the template is described."""
    try:
        environment = Environment(job["literals"], job["alphabet"], datetime.fromisoformat(job["now"]))
        tree = environment.parse(job["template"])
        if "messages" not in job["variables"]:
            return _describe(environment, tree, job["variables"])
        return {"text": _render(_compile(environment, tree), job["variables"])}
    except Refused as error:
        return {"refused": str(error.message)[:1000]}
    except Unknown as error:
        return {"unknown": str(error.message)[:1000]}
    except (MemoryError, RecursionError) as error:
        return {"broken": f"it needs too much {'memory' if isinstance(error, MemoryError) else 'depth'}"}
    except (jinja2.TemplateSyntaxError, SecurityError) as error:
        return {"broken": str(error)[:1000]}
    except Exception as error:
        return {"failed": f"{type(error).__name__}: {error}"[:1000]}


def limit(processor_seconds: int) -> None:
    """Little time and memory from here on, and no new file, socket or process."""
    try:
        import resource
    except ImportError:  # not on Windows; the parent's clock still holds there
        return
    seconds = math.ceil(time.process_time()) + processor_seconds
    for kind, value in (("CPU", seconds), ("AS", MEMORY), ("NOFILE", 0), ("NPROC", 0), ("FSIZE", 0), ("CORE", 0)):
        with suppress(ValueError, OSError, AttributeError):
            resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (value, value))


def warm() -> None:
    """Import what jinja2 and Python import late: afterwards no file can be opened."""
    now = datetime.now().isoformat()
    for template in ("{{ 'é' | tojson(indent=1) }}{{ strftime_now('%d %b') }}", "{{ 1 / 0 }}", "{% nothing %}"):
        answer({"template": template, "literals": [], "alphabet": "", "now": now, "variables": {"messages": []}})


if __name__ == "__main__":
    warm()
    limit(int(sys.argv[1]))
    sys.stdout.write(json.dumps(answer(json.load(sys.stdin))))
