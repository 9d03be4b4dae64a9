"""Pages for people: accounts, keys, usage, the review queue and administration, rendered on the server."""

from foretell.serve.web.routes import pages, web_routes
from foretell.serve.web.site import Page, Site

__all__ = ["Page", "Site", "pages", "web_routes"]
