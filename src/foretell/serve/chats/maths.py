"""Maths in Markdown, kept as it was written: neither emphasis nor escapes are looked for in it."""

from __future__ import annotations

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.renderer import RendererProtocol
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict

_CLOSES = {"$$": "$$", "\\[": "\\]", "\\(": "\\)", "$": "$"}
_LONGEST = 2_000  # characters between two marks: what is longer is no formula


def keep_maths(markdown: MarkdownIt) -> None:
    """Teach a parser $…$, $$…$$, \\(…\\) and \\[…\\]: in a line, and as lines of their own."""
    markdown.inline.ruler.before("escape", "maths", _in_line)
    markdown.block.ruler.before("fence", "maths_lines", _in_lines, {"alt": ["paragraph", "reference", "blockquote"]})
    markdown.add_render_rule("maths", _render)
    markdown.add_render_rule("maths_lines", _render)


def _in_line(state: StateInline, silent: bool) -> bool:
    opening = next((mark for mark in _CLOSES if state.src.startswith(mark, state.pos)), None)
    if opening is None:
        return False
    begin = state.pos + len(opening)
    end = state.src.find(_CLOSES[opening], begin, begin + _LONGEST)
    if end <= begin or (opening == "$" and not _is_formula(state.src, begin, end)):
        return False
    after = end + len(opening)
    if not silent:
        state.push("maths", "span", 0).content = state.src[state.pos : after]
    state.pos = after
    return True


def _is_formula(text: str, begin: int, end: int) -> bool:
    """Whether single dollars mean maths, by Pandoc's rule: no space inside of them, no digit behind."""
    inside, behind = text[begin:end], text[end + 1 : end + 2]
    return not inside[0].isspace() and not inside[-1].isspace() and not behind.isdigit() and "\n" not in inside


def _in_lines(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    if state.is_code_block(first):
        return False
    begin = state.bMarks[first] + state.tShift[first]
    opening = state.src[begin : begin + 2]
    if opening not in ("$$", "\\["):
        return False
    closing = _CLOSES[opening]
    for line in range(first, last):
        inner = state.src[(begin + 2 if line == first else state.bMarks[line]) : state.eMarks[line]]
        if line > first and not inner.strip() and opening == "\\[":
            return False  # an escaped bracket, more likely than maths with a gap
        if closing in inner:
            if not inner.rstrip().endswith(closing):
                return False
            if not silent:
                token = state.push("maths_lines", "div", 0)
                token.content = state.getLines(first, line + 1, state.blkIndent, False).strip()
                token.map = [first, line + 1]
                token.block = True
            state.line = line + 1
            return True
    return False


def _render(renderer: RendererProtocol, tokens: list[Token], at: int, options: OptionsDict, env: EnvType) -> str:
    tag = tokens[at].tag
    return f'<{tag} class="math">{escapeHtml(tokens[at].content)}</{tag}>'
