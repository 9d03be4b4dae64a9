"""How the texts of a conversation are hidden from a template that is not trusted.

A text is a mark, PIECE i SAME k END, the k-th of the conversation and equal to the i-th; what the template looks for
in it stays, each character written as one of private use. What went through tojson carries JSON or ASCII before its END
or behind its character, as often as it was escaped. OPEN and CLOSE stand around what the assistant says.
"""

from __future__ import annotations

# Noncharacters and characters of private use: no letter case or trimming changes them. Digits of marks are such too.
PIECE, SAME, END, JSON, ASCII, OPEN, CLOSE = "\ufdd0\ufdd1\ufdd2\ufdd3\ufdd4\ufdd5\ufdd6"
SHOWN, DIGITS = "\ue000-\uf8ff", "\ufde0-\ufde9"
