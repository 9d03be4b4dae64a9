"""`foretell.load`: from a run, a checkpoint, open weights, a GGUF file or an endpoint to a model one can talk to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from foretell.chat import Conversation
from foretell.errors import CheckpointError, GenerationError, MissingExtraError
from foretell.files import expand_home, read_json
from foretell.generate import Request, Result, Sampling, generate_sync

if TYPE_CHECKING:
    import torch

# The stages of a run that end in a checkpoint, the one to talk to first.
TRAINED = ("ppo", "grpo", "dpo", "sft", "pretrain", "reward")
DTYPES = ("auto", "float32", "bfloat16", "float16")
WEIGHTS: dict[str, Literal[8, 4] | None] = {"full": None, "int8": 8, "int4": 4}
_URL = re.compile(r"https?:", re.IGNORECASE)
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+([@:][\w./ -]+)*")


@dataclass(frozen=True)
class Model:
    """A loaded model.

    generator: the engine behind it (engine.local.Engine, or engine.remote.Endpoint), for batches, streams and scores.
    path: where its weights lie; an endpoint's URL, as a path. sampling: what its makers advise
    (generation_config.json), used by `chat` and `complete` where the caller says nothing.
    """

    generator: Any
    path: Path
    sampling: Mapping[str, Any] = field(default_factory=dict)

    def chat(self, messages: Sequence[Mapping[str, Any]] | Conversation, **sampling: Any) -> Result:
        """The reply to a conversation.

        messages: OpenAI message form; content may hold PIL images, image bytes and `pathlib.Path`s of image files.
        sampling: fields of `generate.Sampling` (max_tokens, temperature, top_p, top_k, stop, seed, logprobs).
        Raises ConversationError, ImageError or GenerationError, saying what to change.
        """
        conversation = messages if isinstance(messages, Conversation) else Conversation.from_openai(messages)
        return generate_sync(self.generator, [Request(conversation, _sampling({**self.sampling, **sampling}))])[0][0]

    def complete(self, text: str, **sampling: Any) -> Result:
        """The continuation of plain text; `sampling` as in `chat`."""
        return generate_sync(self.generator, [Request(text, _sampling({**self.sampling, **sampling}))])[0][0]


def load(ref: str | Path, *, device: str = "auto", dtype: str = "auto", weights: str = "full") -> Model:
    """Load a model by reference.

    ref: a run directory (its final checkpoint is used), a checkpoint folder, a folder in Hugging Face form, a .gguf
    file, a hub id (org/name), or the URL of an OpenAI-compatible endpoint (http://localhost:8000/v1, with #MODEL behind
    it where that offers several; its key from OPENAI_API_KEY). device: "auto" (CUDA, then MPS, then CPU), or a torch
    device, of which an endpoint takes no notice. dtype: what to compute
    in; "auto" takes float32 for weights stored so, and otherwise bfloat16 where the hardware multiplies it. weights:
    "full", or "int8" or "int4" for matrices held in so many bits and multiplied in bfloat16, on a CPU; docs/speed.md
    says what that gains and loses.
    Raises CheckpointError for what holds no model, a damaged one, or one that cannot be represented, GenerationError
    for a URL that is none, TrainingError for a device that is not here, MissingExtraError without torch.
    """
    if dtype not in DTYPES:
        raise GenerationError(f"dtype is {dtype!r}; allowed are {', '.join(DTYPES)}.")
    if weights not in WEIGHTS:
        raise GenerationError(f"weights is {weights!r}; allowed are {', '.join(WEIGHTS)}.")
    if _URL.match(str(ref)):
        from foretell.engine.remote import Endpoint

        if (dtype, weights) != ("auto", "full"):
            raise GenerationError(
                f"{ref} is an endpoint, which holds its weights in its own way. Leave dtype auto and weights full."
            )
        url, _, name = str(ref).partition("#")
        return Model(Endpoint(url, name or None), Path(url))
    foreign = is_foreign(ref)
    folder = Path(ref) if foreign else find_checkpoint(ref)
    try:
        import torch

        from foretell.engine.local import Engine
        from foretell.train.setup import pick_device, pick_precision
        from foretell.weights.importing import load_checkpoint, load_source
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("foretell"):
            raise
        raise MissingExtraError("Loading a model", "torch") from error
    place = pick_device(device)
    bits = WEIGHTS[weights]
    if bits is not None and (place.type != "cpu" or dtype not in ("auto", "bfloat16")):
        raise GenerationError(
            f"Weights in {weights} multiply in bfloat16 on a CPU, not in {dtype} on {place}. Leave them full, or give "
            "device cpu and dtype bfloat16."
        )

    def compute_in(stored: torch.dtype) -> torch.dtype:
        if bits is not None:
            return torch.bfloat16
        if dtype == "auto" and stored == torch.float32:
            return stored
        picked: torch.dtype = getattr(torch, pick_precision("auto", place) if dtype == "auto" else dtype)
        return picked

    # A second pool of threads, that of this thread, would make OpenMP put waiting threads of the engine's pool to sleep
    # at once, and waking them takes as long as the products of a token: 135 M parameters answered a third slower.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        opened = load_source(ref, compute_in) if foreign else load_checkpoint(folder, compute_in)
        # This rearranges the weights.
        engine = Engine(opened.model.to(place), opened.tokenizer, opened.template, bits=bits)
    finally:
        torch.set_num_threads(threads)
    return Model(engine, folder, opened.sampling)


def is_foreign(ref: str | Path) -> bool:
    """Whether a reference names open weights (a GGUF file, a folder in Hugging Face form, a hub id), not ours."""
    path = expand_home(ref)
    if path.is_dir():
        config = path / "config.json"
        return read_json(config).get("model_type") != "foretell" if config.is_file() else any(path.glob("*.gguf"))
    if path.is_file() or path.suffix == ".gguf":
        return True
    return not str(ref).startswith("runs/") and bool(_HUB_ID.fullmatch(str(ref)))  # a run may not be there yet


def find_checkpoint(ref: str | Path) -> Path:
    """The checkpoint folder that a reference names, without reading it.

    Raises CheckpointError or GenerationError, as `load` does.
    """
    name = str(ref)
    path = expand_home(ref)
    if _URL.match(name):
        raise GenerationError(
            f"{name} is an endpoint, whose weights are not here. Give a run directory or a checkpoint folder."
        )
    if not path.exists():
        raise CheckpointError(
            f"There is no folder {name}. Give a run directory (such as runs/quickstart), a checkpoint folder, a .gguf "
            "file, or a hub id (org/name)."
        )
    done = [path / stage / "checkpoint" for stage in TRAINED if (path / stage / "checkpoint").is_dir()]
    path = done[0] if done else path
    if (path / "config.json").is_file():
        return path
    stages = [path / stage for stage in TRAINED if (path / stage / "checkpoints").is_dir()]
    cut = [step for folder in (*stages, path) for step in sorted((folder / "checkpoints").glob("step-*"))[-1:]]
    if cut:
        whole = not any(cut[0].glob("training/shard-*"))  # those of a sharded run lie in parts
        raise CheckpointError(
            f"The run {name} is not finished. Resume it with the command that began it"
            + (f", or load its newest checkpoint, {cut[0]}." if whole else ".")
        )
    raise CheckpointError(
        f"{name} holds no model. Expected a run directory with a finished training, or a checkpoint folder with "
        "config.json and model.safetensors."
    )


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of a checkpoint's weights, as the manifest beside them has it; empty where there is none."""
    try:
        found = read_json(checkpoint / "manifest.json").get("files")
    except CheckpointError:
        return ""
    digest = found.get("model.safetensors") if isinstance(found, dict) else None
    return digest if isinstance(digest, str) else ""


def _sampling(fields: dict[str, Any]) -> Sampling:
    allowed = [field.name for field in dataclasses.fields(Sampling)]
    if unknown := sorted(set(fields) - set(allowed)):
        raise GenerationError(f"Unknown sampling setting {', '.join(unknown)}; allowed are {', '.join(allowed)}.")
    return Sampling(**fields)
