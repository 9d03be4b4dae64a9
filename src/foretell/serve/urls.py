"""URLs that may be fetched: each has one reading, the pattern below, and what does not match it is refused."""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address
from urllib.parse import urljoin

from yarl import URL

from foretell.errors import ImageError

_PATH = r"a-z0-9\-._~:/\[\]@!$&'()*+,;=%"  # of RFC 3986; a query may hold ? besides
# re.ASCII, since without it K (the Kelvin sign) and ſ pass for k and s.
_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>[a-z0-9_.-]+|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?"
    # Only a slash ends the host: ? and # there are where parsers differ most.
    rf"(?:(?P<rest>/[{_PATH}?]*)(?:#[{_PATH}?]*)?)?",
    re.IGNORECASE | re.ASCII,
)
_REFERENCE = re.compile(rf"[{_PATH}?]+(?:#[{_PATH}?]*)?", re.IGNORECASE | re.ASCII)
# A last label that begins with a letter leaves no odd way to write an IPv4 address: they all end in a number.
_NAME = re.compile(r"(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)+(?P<last>[a-z](?:[a-z0-9-]{0,61}[a-z0-9]))")
_HOME = ("localhost", "local", "localdomain", "internal", "intranet", "private", "lan", "home", "corp", "arpa", "onion")
_URL_LENGTH = 4096


def is_name(host: str) -> bool:
    """Whether a host is a full name in ASCII, in lower case, and no address however written."""
    return _NAME.fullmatch(host) is not None


def parse_url(text: str, ports: Collection[int]) -> URL:
    """A URL in its one reading. Raises ImageError."""
    found = _URL.fullmatch(text) if len(text) <= _URL_LENGTH else None
    if not found:
        raise ImageError(
            "The image's URL cannot be used. Expected http:// or https:// with a plain host name and no user name, "
            f"in ASCII, percent-encoded, of at most {_URL_LENGTH} characters; or data:image/png;base64,… (or jpeg, "
            "webp, gif)."
        )
    scheme, host = found["scheme"].lower(), found["host"].lower()
    port = int(found["port"] or (443 if scheme == "https" else 80))
    if port not in ports:
        raise ImageError(f"The image's URL names port {port}; allowed are {', '.join(map(str, sorted(ports)))}.")
    name = _NAME.fullmatch(host)
    try:
        ok = bool(name) or (ip_address(host.strip("[]")).version == 6) == host.startswith("[")
    except ValueError:
        ok = False
    if not ok or len(host) > 253 or (name and name["last"] in _HOME):
        raise ImageError(
            "The image's URL names a host that cannot be used. Expected a full public name such as example.com, with "
            "international names in their xn-- form."
        )
    return URL(f"{scheme}://{host}:{port}{found['rest'] or '/'}", encoded=True)


def follow(base: URL, location: str, ports: Collection[int]) -> URL:
    """Where an answer sends on to. Raises ImageError as `parse_url` does, and for a step from https to http."""
    # urljoin drops characters that it does not like, and slashes where it likes none: it is given plain paths only.
    if not _REFERENCE.fullmatch(location):
        raise ImageError("The image's URL redirects to what is no URL. Check the URL.")
    if ":" in re.split("[/?#]", location, maxsplit=1)[0]:
        text = location
    elif location.startswith("//"):
        text = f"{base.scheme}:{location}"
    else:
        text = urljoin(str(base), location)
    url = parse_url(text, ports)
    if base.scheme == "https" and url.scheme == "http":
        raise ImageError("The image's URL redirects from https to http, which is not followed.")
    return url
