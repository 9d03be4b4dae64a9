"""The one error hierarchy.

A message states what was found, what was expected, and the next step. The command line prints it
as one paragraph and exits with code 2; nothing below the command line catches it to hide it.
"""

from __future__ import annotations


class ForetellError(Exception):
    """Base of every error a user can cause or mend."""


class Stopped(KeyboardInterrupt):
    """Work was ended by a signal (`number`), after everything was saved."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class RecipeError(ForetellError):
    """A recipe names an unknown field, or a value that is not allowed."""


class DataError(ForetellError):
    """Training or evaluation data is missing, unreadable, empty or of the wrong form."""


class RowError(DataError):
    """A row of a data file cannot be used. why: the same words for rows that fail alike."""

    def __init__(self, where: str, field: str, why: str, advice: str) -> None:
        super().__init__(f"{where}, {field}: {why}. {advice}")
        self.why = why


class ImageError(DataError):
    """An image is truncated, hostile, or too large or small to be used."""


class ConversationError(ForetellError):
    """A conversation is not in OpenAI message form, or cannot be put into the template."""


class CheckpointError(ForetellError):
    """A checkpoint is damaged, incomplete, or of another shape than the model."""


class TrainingError(ForetellError):
    """Training cannot go on: non-finite loss, too little data, an impossible setting."""


class AlarmError(TrainingError):
    """A run was ended by what watches it, after everything was saved."""


class GroupError(TrainingError):
    """What ended a run of several processes, in the same words in each of them.

    lasting: the same again would end alike. told: another process of this machine says it already.
    """

    def __init__(self, message: str, lasting: bool = False, told: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting
        self.told = told


class GenerationError(ForetellError):
    """A request cannot be answered: prompt too long, images for a text-only model."""


class ContextLengthError(GenerationError):
    """A prompt, or a prompt and its reply, is longer than the model reads: found and limit, in tokens."""

    def __init__(self, message: str, found: int, limit: int) -> None:
        super().__init__(message)
        self.found = found
        self.limit = limit


class OverloadedError(GenerationError):
    """The engine's queue is full; the same request may be answered later."""


class GrammarError(GenerationError):
    """A schema, regular expression or grammar that a reply should follow is damaged, or too large to be used."""


class RequestError(ForetellError):
    """A call to the server cannot be answered: status is HTTP's; type, param and code are those of OpenAI's errors;
    headers go with the answer."""

    def __init__(
        self,
        message: str,
        status: int = 400,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.code = code
        self.headers = headers


class LaunchError(ForetellError):
    """The processes of a run could not be started, or what ended them."""


class RunError(ForetellError):
    """A run directory is missing, locked, not writable, or of another recipe."""


class ForecastError(ForetellError):
    """A ladder is unreadable or mixed, supports no forecast, or a record of one is altered, missing or late."""


class SandboxError(ForetellError):
    """No sandbox for untrusted code is available, or it could not be started."""


class MissingExtraError(ForetellError):
    """A feature needs a package that the base installation does not carry."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs packages that are not installed. "
            f"Install them with: pip install 'foretell[{extra}]'"
            + (
                " (torch comes in a CPU and a CUDA build; docs/install.md says how to choose)."
                if extra == "torch"
                else "."
            )
        )
        self.feature = feature
        self.extra = extra


class EvalError(ForetellError):
    """An eval, its registry, its samples or its log cannot be read or run, or a model does not answer."""


class EndpointError(GenerationError):
    """An endpoint refuses, fails, or answers in another form than it should.

    status: the HTTP status, None where there was none. lasting: other calls can only fail alike (a wrong key, an
    unknown model, no money left), so that a run of many should stop.
    """

    def __init__(self, message: str, status: int | None = None, lasting: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.lasting = lasting


class CardError(ForetellError):
    """A system card cannot be made: its run is missing or unfinished, a file is damaged, or measures another model."""


class RubricError(ForetellError):
    """A rubric has a gap or a contradiction, or is asked about what it does not judge."""


class PolicyError(ForetellError):
    """A usage policy or a lexicon cannot be read, or contradicts itself."""


class GraderError(ForetellError):
    """A grader is down after all tries, or answers with something that is no grade."""


class StoreError(ForetellError):
    """The database of accounts is locked, full, gone, or of another version; what was asked for was not done."""
