"""What an exam is: sections of questions, how they count, and how points become a score. Plain data, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from foretell.evals.exams.charts import PercentileTable, ScoreChart
from foretell.sections import Name

Kind = Literal["choice", "free", "essay"]
Split = Literal["holdout", "nonholdout"]
SPLITS: tuple[Split, ...] = ("holdout", "nonholdout")
Source = str | dict[str, Any]  # a file of JSON lines, or {from: ADAPTER, …}
Table = str | dict[Any, Any]  # a CSV file, or rows
Text = Annotated[str, Field(min_length=1)]


class _Strict(BaseModel):
    """Unknown keys are errors; a number is no text and a text is no number."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Criterion(_Strict):
    """One line of a rubric. points: whole, for all of it."""

    criterion: Text
    points: int = Field(1, ge=1, le=20)


class Irt(_Strict):
    """How hard a question is to takers of the two-parameter logistic model, in units of their spread."""

    difficulty: float
    discrimination: float = Field(1.0, gt=0)


class Item(_Strict):
    """A question. passage: what it is about, before it. options, answer: of a choice, the letter or letters; of a free
    response `answer` is what a reply has to end with, `rubric` and `reference` what a grader goes by. images: name →
    file beside the JSON lines, or a data URL; `<image NAME>` in the text says where. group: questions that share one (a
    passage) do not count as independent."""

    id: Text | None = None
    question: Text
    passage: str = ""
    options: list[Text] = Field(default_factory=list)
    answer: str | list[str] | None = None
    explanation: Text | None = None
    rubric: list[Criterion] = Field(default_factory=list)
    reference: Text | None = None
    images: dict[str, str] = Field(default_factory=dict)
    group: str | None = None
    irt: Irt | None = None

    @property
    def letters(self) -> list[str]:
        """The right letters of a choice, or the right answers of a free response."""
        return [self.answer] if isinstance(self.answer, str) else list(self.answer or ())


class SectionFile(_Strict):
    """A section as its file has it. points, wrong, blank: of a choice that is right, wrong, not made. weight: of each
    raw point in the total; worth: points that the section has there, however many questions it is of. explain: whether
    an explanation is sampled before the letter. scale: score → what an essay of it is like."""

    name: Name
    kind: Kind
    items: dict[Split, Source]
    shots: Source | None = None
    num_shots: int | None = Field(None, ge=0)
    instructions: str = ""
    points: float = Field(1.0, gt=0)
    wrong: float = Field(0.0, le=0)
    blank: float = Field(0.0, ge=0)
    weight: float = Field(1.0, gt=0)
    worth: float | None = Field(None, gt=0)
    explain: bool = True
    temperature: float | None = Field(None, ge=0, le=2)
    max_tokens: int | None = Field(None, ge=1)
    scale: dict[int, Text] = Field(default_factory=dict)
    chart: Table | None = None
    percentiles: Table | None = None


class Published(_Strict):
    """What others say a model reached, to stand beside: a scaled score, points, a percentile as it was printed."""

    model: Text
    score: float | None = None
    percentile: str | float | None = None
    section: str | None = None
    source: str = ""


class TotalFile(_Strict):
    """How sections become a total. of: their raw points, or their scaled scores. out_of: the best total that can be
    had. round: of points before they are looked up in the chart."""

    of: Literal["raw", "scaled"] = "raw"
    out_of: float
    round: Literal["nearest", "down"] = "nearest"
    chart: Table | None = None
    percentiles: Table | None = None


class ExamFile(_Strict):
    """An exam as its YAML has it. version: raised when questions change."""

    exam: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    version: Annotated[str, Field(pattern=r"^v[0-9]+$")] = "v0"
    title: Text
    source: str = ""
    license: str = ""
    note: str = ""
    sections: list[SectionFile] = Field(min_length=1)
    total: TotalFile
    published: list[Published] = Field(default_factory=list)


@dataclass(frozen=True)
class Section:
    """A section of one split, read and checked. lowest, highest: raw points that can be had; factor: what each is worth
    in the total."""

    spec: SectionFile
    items: tuple[Item, ...]
    shots: tuple[Item, ...]
    chart: ScoreChart | None = None
    percentiles: PercentileTable | None = None

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def highest(self) -> float:
        return sum(points_of(self.spec, item)[1] for item in self.items)

    @property
    def lowest(self) -> float:
        return sum(points_of(self.spec, item)[0] for item in self.items)

    @property
    def factor(self) -> float:
        return self.spec.weight if self.spec.worth is None else self.spec.worth / self.highest


@dataclass(frozen=True)
class Exam:
    """An exam of one split, ready to be sat. digest: of all that is asked and how it counts. root: its file's folder.
    warnings: what is allowed but odd."""

    spec: ExamFile
    split: Split
    sections: tuple[Section, ...]
    digest: str
    file: str
    chart: ScoreChart | None = None
    percentiles: PercentileTable | None = None
    warnings: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.spec.exam

    @property
    def eval_name(self) -> str:
        """In the form of the evals registry: NAME.SPLIT.VERSION."""
        return f"{self.spec.exam}.{self.split}.{self.spec.version}"

    @property
    def questions(self) -> list[tuple[Section, Item]]:
        """All questions in the order of their sections: sample i of a run is the i-th."""
        return [(section, item) for section in self.sections for item in section.items]

    @property
    def has_images(self) -> bool:
        return any(item.images for _, item in self.questions)


def points_of(spec: SectionFile, item: Item) -> tuple[float, float]:
    """The fewest and the most points that a question can bring."""
    if spec.kind == "choice":
        return min(spec.wrong, spec.blank), spec.points
    if spec.kind == "essay":
        return float(min(spec.scale)), float(max(spec.scale))
    return 0.0, float(sum(line.points for line in item.rubric)) if item.rubric else spec.points
