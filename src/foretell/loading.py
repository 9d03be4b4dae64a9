"""`foretell.load`: from a run directory or a checkpoint folder to a model one can talk to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from foretell.chat import Conversation
from foretell.errors import CheckpointError, GenerationError, MissingExtraError
from foretell.generate import Request, Result, Sampling, generate_sync

if TYPE_CHECKING:
    from foretell.engine.local import Engine


@dataclass(frozen=True)
class Model:
    """A loaded model. generator: the engine behind it, for batches, streams and scores. folder: its checkpoint."""

    generator: Engine
    folder: Path

    def chat(self, messages: Sequence[Mapping[str, Any]] | Conversation, **sampling: Any) -> Result:
        """The reply to a conversation.

        messages: OpenAI message form; content may hold PIL images, image bytes and `pathlib.Path`s of image files.
        sampling: fields of `generate.Sampling` (max_tokens, temperature, top_p, top_k, stop, seed, logprobs).
        Raises ConversationError, ImageError or GenerationError, saying what to change.
        """
        conversation = messages if isinstance(messages, Conversation) else Conversation.from_openai(messages)
        return generate_sync(self.generator, [Request(conversation, _sampling(sampling))])[0][0]

    def complete(self, text: str, **sampling: Any) -> Result:
        """The continuation of plain text; `sampling` as in `chat`."""
        prompt = self.generator.encode_text(text)
        return generate_sync(self.generator, [Request(prompt, _sampling(sampling))])[0][0]


def load(ref: str | Path, *, device: str = "auto") -> Model:
    """Load a model by reference.

    ref: a run directory (its final checkpoint is used) or a checkpoint folder. device: "auto" (CUDA, then MPS,
    then CPU), or a torch device.
    Raises CheckpointError for a folder that holds no model or a damaged one, GenerationError for kinds of
    reference that this version does not read, TrainingError for a device that is not here, MissingExtraError without
    torch.
    """
    folder = find_checkpoint(ref)
    try:
        import torch

        from foretell.data.tokenizer import Tokenizer
        from foretell.engine.local import Engine
        from foretell.model.weights import load_model, read_config
        from foretell.train.setup import pick_device
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("foretell"):
            raise
        raise MissingExtraError("Loading a model", "torch") from error
    place = pick_device(device)
    read_config(folder)  # first, since a folder of another kind is no damaged one
    model = load_model(folder, place, torch.float32)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size != model.config.vocab_size:
        raise CheckpointError(
            f"The tokenizer in {folder} has {tokenizer.vocab_size} ids, but the model {model.config.vocab_size}: "
            "they are not from the same run. Copy the whole checkpoint folder again."
        )
    vision = model.config.vision
    return Model(Engine(model, tokenizer, vision.tiling if vision else None), folder)


def find_checkpoint(ref: str | Path) -> Path:
    """The checkpoint folder that a reference names, without reading it.

    Raises CheckpointError or GenerationError, as `load` does.
    """
    name = str(ref)
    path = Path(ref).expanduser()
    if re.match(r"https?:", name):
        raise GenerationError(
            f"{name} is an endpoint; models behind endpoints come with a later version of Foretell. "
            "Give a run directory or a checkpoint folder."
        )
    if path.suffix == ".gguf":
        raise CheckpointError(
            f"{name} is a GGUF file; these come with a later version of Foretell. "
            "Give a run directory or a checkpoint folder."
        )
    if not path.exists():
        hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name)
        raise CheckpointError(
            f"There is no folder {name}. Give a run directory (such as runs/quickstart) or a checkpoint folder."
            + (" If it is meant as a model on the hub: these come with a later version of Foretell." if hub else "")
        )
    if (path / "pretrain" / "checkpoint").is_dir():
        path = path / "pretrain" / "checkpoint"
    if (path / "config.json").is_file():
        return path
    cut = sorted((path / "pretrain" / "checkpoints").glob("step-*")) or sorted((path / "checkpoints").glob("step-*"))
    if cut:
        raise CheckpointError(
            f"The run {name} is not finished. Resume it with `foretell run`, or load its newest checkpoint, {cut[-1]}."
        )
    raise CheckpointError(
        f"{name} holds no model. Expected a run directory with pretrain/checkpoint, or a checkpoint folder with "
        "config.json and model.safetensors."
    )


def _sampling(fields: dict[str, Any]) -> Sampling:
    allowed = [field.name for field in dataclasses.fields(Sampling)]
    if unknown := sorted(set(fields) - set(allowed)):
        raise GenerationError(f"Unknown sampling setting {', '.join(unknown)}; allowed are {', '.join(allowed)}.")
    return Sampling(**fields)
