"""Overlap: which texts stand, in part, in a training corpus, by the substring match of the GPT-4 report's appendix C.

from foretell.measure.overlap import Index, build, check

build(files, Path("corpus.index"))       # once; files: see foretell.data.texts.corpus_files
flags = check(Index(Path("corpus.index")), {"q1": "Which of the following …"})
"""

from foretell.measure.overlap.builder import CorpusFile, build
from foretell.measure.overlap.index import Index, Place
from foretell.measure.overlap.items import COUNT, LENGTH, Flag, check, substrings
from foretell.measure.overlap.normal import normalize

__all__ = ["COUNT", "LENGTH", "CorpusFile", "Flag", "Index", "Place", "build", "check", "normalize", "substrings"]
