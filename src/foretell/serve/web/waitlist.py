"""The waitlist as an admin sees it: who asks, and the link that lets one in."""

from __future__ import annotations

from foretell.serve.web.site import Page, Reply, Visit
from foretell.serve.web.shell import shell


def _list(visit: Visit) -> Reply:
    return shell(visit, "Waitlist")


PAGES = (Page("/admin/waitlist", "admin", _list),)
