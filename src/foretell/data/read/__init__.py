"""Every form of source as a stream of documents, each with where it came from, and of reasons for what is left out."""

from foretell.data.read.files import File as File
from foretell.data.read.files import Unit as Unit
from foretell.data.read.reading import read as read
from foretell.data.read.reading import source_of as source_of
from foretell.data.read.reading import units as units
from foretell.data.read.sections import ReadSource as ReadSource
