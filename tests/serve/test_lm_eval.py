"""lm-eval as a client: the same likelihoods as a plain forward pass, and generation through the conversation route."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from servekit import Live, make_server, running

import foretell
from weights.families import FAMILIES
from weights.published import write_tokenizer

peer = pytest.importorskip("lm_eval.models.openai_completions")
pytestmark = pytest.mark.peer
PAIRS = [("the hell", " the he"), ("he said:", " hello"), ("", "the"), ("the hell", " the hello")]


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    FAMILIES["llama"]().save(folder)
    write_tokenizer(folder)
    return folder


@pytest.fixture(scope="module")
def model(hub: Path) -> foretell.Model:
    return foretell.load(hub)


@pytest.fixture(scope="module")
def live(model: foretell.Model) -> Iterator[Live]:
    with running(make_server({"tiny": model.generator})) as found:
        yield found


def instance(kind: str, *arguments: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0)


@torch.no_grad()
def test_likelihoods_equal_a_forward_pass(live: Live, model: foretell.Model, hub: Path) -> None:
    client = peer.LocalCompletionsAPI(
        base_url=f"{live.url}/v1/completions", model="tiny", tokenizer=str(hub), batch_size=2, max_length=500
    )
    told = client.loglikelihood([instance("loglikelihood", *pair) for pair in PAIRS], disable_tqdm=True)
    for (context, rest), (logprob, greedy) in zip(PAIRS, told, strict=True):
        before, tail = (
            client._encode_pair(context, rest) if context else ([client.prefix_token_id], client.tok_encode(rest))
        )
        ids = [*before, *tail]
        logs = model.generator.model(torch.tensor([ids]))[0].log_softmax(-1)[len(before) - 1 : -1]
        assert logprob == pytest.approx(logs.gather(1, torch.tensor(tail)[:, None]).sum().item(), abs=1e-4)
        assert greedy == (logs.argmax(-1).tolist() == tail)


def test_generation_is_the_engines(live: Live, model: foretell.Model) -> None:
    client = peer.LocalChatCompletion(base_url=f"{live.url}/v1/chat/completions", model="tiny", tokenizer_backend=None)
    chat = [{"role": "user", "content": "the hell"}]
    settings = {"until": ["\n\n"], "max_gen_toks": 12, "temperature": 0}
    asked = client.apply_chat_template(chat)
    (told,) = client.generate_until([instance("generate_until", asked, settings)], disable_tqdm=True)
    wanted = model.chat(chat, max_tokens=12, temperature=0, stop=["\n\n"])
    assert told == wanted.text and told
