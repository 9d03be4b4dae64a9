"""Likelihoods from endpoints that echo their prompts."""

from __future__ import annotations

from itertools import accumulate

import pytest

from foretell.chat import Conversation
from foretell.engine.remote import Endpoint
from foretell.errors import EndpointError, GenerationError
from mock_endpoint import Reply, run, serve

CHAT = Conversation.from_openai([{"role": "user", "content": "Hello, you"}])


def letters(call, form="offsets"):
    """A /completions that echoes: tokens of three characters, each as likely as its place says.

    form: "offsets" of OpenAI, which spells tokens that are no characters as bytes; "spelled", without offsets; "start",
    with a token before the text, whose length moves the offsets, as vLLM does; "broken", with characters that no token
    spells beside; "none".
    """
    prompts = call.json["prompt"]
    choices = []
    for i, text in enumerate([prompts] if isinstance(prompts, str) else prompts):
        tokens = [text[at : at + 3] for at in range(0, len(text), 3)] + ["!"]
        values = [None, *(-float(k) for k in range(1, len(tokens)))]
        logprobs = {"tokens": tokens, "token_logprobs": values}
        if form == "offsets":
            logprobs["tokens"] = ["bytes:\\xe2", *tokens[1:]]
            logprobs["text_offset"] = [*(3 * k for k in range(len(tokens) - 1)), len(text)]
        elif form in ("start", "broken"):
            shown = tokens if form == "start" else ["\ufffd\ufffd", *tokens[1:]]
            logprobs = {"tokens": ["<s>", *shown], "token_logprobs": [None, -9.0, *values[1:]]}
            logprobs["text_offset"] = [0, *accumulate(len(token) for token in ["<s>", *shown[:-1]])]
        told = {"text": "!", "logprobs": None} if form == "none" else {"text": text + "!", "logprobs": logprobs}
        choices.append({"index": i, "finish_reason": "length", **told})
    return Reply({"choices": choices[::-1]})


@pytest.mark.parametrize("form", ["offsets", "spelled", "start", "broken"])
def test_scores_are_sums_over_the_tokens_of_the_continuation(form):
    async def main():
        async with serve(lambda call: letters(call, form)) as mock:
            endpoint = Endpoint(mock.url, "mock")
            assert endpoint.can_score and await endpoint.score("abc", []) == []
            scores = await endpoint.score("abcdef", ["ghi", "ghijk", "ghijklm"])
            alone = await endpoint.score("abcde", ["fg"])  # the token "def" holds the end of the prompt too
            return scores, alone, [call.json["prompt"] for call in mock.calls], mock.calls[0].json

    scores, alone, prompts, sent = run(main())
    assert scores == [-2, -2 - 3, -2 - 3 - 4] and alone == [-1 - 2]
    assert prompts == [["abcdefghi", "abcdefghijk", "abcdefghijklm"], "abcdefg"]
    assert (sent["echo"], sent["logprobs"], sent["max_tokens"]) == (True, 1, 1)


def test_one_text_without_places_takes_nothing_from_the_others():
    def handler(call):
        reply = letters(call, "spelled")
        if "\xe9" in call.json["prompt"]:
            reply.body["choices"][0]["logprobs"]["tokens"][-2] = "\ufffd"
        return reply

    async def main():
        async with serve(handler) as mock:
            endpoint = Endpoint(mock.url, "mock")
            await endpoint.score("abc", ["def"])
            with pytest.raises(EndpointError, match=r"no places of its tokens in the text, so it cannot score this\."):
                await endpoint.score("abc", ["d\xe9"])
            return await endpoint.score("abc", ["def"])

    assert run(main()) == [-1]


def test_a_server_that_cannot_score_is_asked_once():
    async def main():
        async with serve(lambda call: letters(call, "none")) as mock:
            endpoint = Endpoint(mock.url, "mock")
            with pytest.raises(EndpointError, match="no log-probabilities of the prompt, so it cannot score"):
                await endpoint.score("abc", ["d"])
            assert not endpoint.can_score
            with pytest.raises(GenerationError, match="can score text only"):
                await endpoint.score("abc", ["d"])
            return len(mock.calls)

    assert run(main()) == 1
    assert not Endpoint("http://h", chat=True).can_score and Endpoint("http://h", can_score=True).can_score
    for prompt, continuations in ((CHAT, ["a"]), ("abc", ["a", ""]), ("", ["a"])):
        with pytest.raises(GenerationError):
            run(Endpoint("http://h", "m").score(prompt, continuations))
