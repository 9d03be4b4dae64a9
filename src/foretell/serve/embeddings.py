"""POST /v1/embeddings: texts in, mean-pooled vectors out."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import numpy as np

from foretell.generate import Usage
from foretell.serve.asked import EmbeddingBody
from foretell.serve.calls import Server, json_response
from foretell.serve.completions import prompts_of
from foretell.serve.refusals import refuse


async def embed(server: Server, asked: EmbeddingBody) -> Any:
    served = await server.models.get(asked.model)
    if not hasattr(served.generator, "embed"):
        raise refuse(f"The model '{served.name}' makes no embeddings.", 400, param="model", code="unsupported_model")
    prompts = prompts_of(asked.input)
    with server.traffic.queue():
        encoded = await asyncio.to_thread(lambda: [served.generator.encode(prompt, 0) for prompt in prompts])
        vectors = await served.generator.embed(encoded)
    tokens = sum(len(prompt.ids) for prompt in encoded)
    if asked.dimensions is not None and asked.dimensions != len(vectors[0]):
        text = f"Invalid 'dimensions': this model's vectors have {len(vectors[0])}, and are not cut."
        raise refuse(text, 400, param="dimensions", code="invalid_value")
    server.metrics.used(served.name, Usage(tokens, 0))

    def written(vector: list[float]) -> list[float] | str:
        if asked.encoding_format == "base64":
            return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()
        return vector

    data = [{"object": "embedding", "index": i, "embedding": written(vector)} for i, vector in enumerate(vectors)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return json_response({"object": "list", "data": data, "model": served.name, "usage": usage})
