"""What a file's licence is: its SPDX header, else the nearest licence file, told by the words it is known by."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

LICENSE_FILE = re.compile(r"(un)?licen[cs]e([.-].*)?|copying([.-].*)?", re.IGNORECASE)
SPDX = re.compile(r"SPDX-License-Identifier:\s*([A-Za-z0-9.+() -]{2,200}?)\s*(?:\*/|-->|\"|'|$)", re.MULTILINE)
HEAD = 4000  # characters of a file in which its SPDX header stands
BSD = "redistribution and use in source and binary forms, with or without modification, are permitted"
CREATIVE = re.compile(r"creativecommons\.org/(licenses|publicdomain)/([a-z-]+)/(\d\.\d)")

# The first whose words are all there: narrower ones stand before those whose words they share.
KNOWN: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("AGPL-3.0-only", ("gnu affero general public license", "version 3, 19 november 2007")),
    ("LGPL-3.0-only", ("gnu lesser general public license", "version 3, 29 june 2007")),
    ("LGPL-2.1-only", ("gnu lesser general public license", "version 2.1, february 1999")),
    ("GPL-3.0-only", ("gnu general public license", "version 3, 29 june 2007")),
    ("GPL-2.0-only", ("gnu general public license", "version 2, june 1991")),
    ("Apache-2.0", ("apache license", "version 2.0, january 2004")),
    ("MPL-2.0", ("mozilla public license version 2.0",)),
    ("EPL-2.0", ("eclipse public license - v 2.0",)),
    ("BSL-1.0", ("boost software license - version 1.0",)),
    ("Unlicense", ("this is free and unencumbered software released into the public domain",)),
    ("PSF-2.0", ("python software foundation license version 2",)),
    ("CC0-1.0", ("cc0 1.0 universal",)),
    ("CC-BY-NC-SA-4.0", ("attribution-noncommercial-sharealike 4.0 international",)),
    ("CC-BY-NC-ND-4.0", ("attribution-noncommercial-noderivatives 4.0 international",)),
    ("CC-BY-NC-4.0", ("attribution-noncommercial 4.0 international",)),
    ("CC-BY-SA-4.0", ("attribution-sharealike 4.0 international",)),
    ("CC-BY-ND-4.0", ("attribution-noderivatives 4.0 international",)),
    ("CC-BY-4.0", ("attribution 4.0 international",)),
    ("BSD-4-Clause", (BSD, "all advertising materials mentioning")),
    ("BSD-3-Clause", (BSD, "endorse or promote products")),
    ("BSD-2-Clause", (BSD,)),
    ("ISC", ("permission to use, copy, modify, and/or distribute this software for any purpose with or without fee",)),
    ("ISC", ("permission to use, copy, modify, and distribute this software for any purpose with or without fee",)),
    ("Zlib", ("this software is provided 'as-is'", "altered source versions must be plainly marked")),
    ("MIT", ("permission is hereby granted, free of charge", "the above copyright notice and this permission notice")),
    ("MIT-0", ("permission is hereby granted, free of charge", "without restriction")),
    ("Apache-2.0", ("licensed under the apache license, version 2.0",)),
)


def license_of_text(text: str) -> str:
    """The SPDX name of a licence's text; "unknown" for one that is not told apart here."""
    if stated := spdx_in(text):
        return stated
    words = " ".join(text.lower().replace("’", "'").split())
    for name, phrases in KNOWN:
        if all(phrase in words for phrase in phrases):
            return name
    if told := CREATIVE.search(words):
        return "CC0-1.0" if told.group(2) == "zero" else f"CC-{told.group(2).upper()}-{told.group(3)}"
    return "unknown"


def spdx_in(text: str) -> str:
    """The licence that a file's own header states; empty without one."""
    told = SPDX.search(text[:HEAD])
    return told.group(1).strip() if told else ""


def is_license_file(name: str) -> bool:
    return LICENSE_FILE.fullmatch(PurePosixPath(name).name) is not None


def nearest(name: str, licenses: Mapping[str, str]) -> str:
    """The licence of the nearest folder above a file that has one. licenses: folder ("" is the root) → SPDX."""
    for folder in PurePosixPath(name).parents:
        key = "" if str(folder) == "." else str(folder)
        if key in licenses:
            return licenses[key]
    return ""
