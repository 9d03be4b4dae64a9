"""Look at runs: a local web page over a folder of logs, and the same as files for any web server."""

from foretell.evals.viewer.export import export
from foretell.evals.viewer.server import serve

__all__ = ["export", "serve"]
