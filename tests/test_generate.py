import asyncio
import math

import pytest

from foretell.chat import Conversation
from foretell.errors import GenerationError
from foretell.generate import Generator, Request, Result, Sampling, generate_sync, score_sync


class Counting:
    """Answers out of order, as a batching engine may."""

    can_score = True

    async def generate(self, requests):
        for i in reversed(range(len(requests))):
            for j in reversed(range(requests[i].n)):
                yield Result(f"{i}", request=i, sample=j, delta=True)
                yield Result(f"{i}.{j}", request=i, sample=j, finish_reason="stop")

    async def score(self, prompt, continuations):
        return [-float(len(text)) for text in continuations]


def test_results_come_back_in_the_order_of_requests_and_samples():
    generator = Counting()
    assert isinstance(generator, Generator)
    requests = [Request(Conversation(), n=n) for n in (1, 3, 2)]
    texts = [[r.text for r in results] for results in generate_sync(generator, requests)]
    assert texts == [["0.0"], ["1.0", "1.1", "1.2"], ["2.0", "2.1"]]
    assert score_sync(generator, Conversation(), ["a", "bcd"]) == [-1.0, -3.0]


def test_sync_calls_work_where_a_loop_is_running():
    async def notebook():
        return generate_sync(Counting(), [Request(Conversation())])[0][0].text

    assert asyncio.run(notebook()) == "0.0"


def test_one_stop_string_may_be_given_bare():
    assert Sampling(stop="END").stop == ("END",)
    assert Sampling(stop=["a", "b"]).stop == ("a", "b")


@pytest.mark.parametrize(
    "field, value",
    [
        ("max_tokens", 0),
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_k", -1),
        ("logprobs", 21),
        ("stop", ("a", "")),
    ],
)
def test_impossible_sampling_names_field_value_and_what_is_allowed(field, value):
    with pytest.raises(GenerationError, match=f"{field} is .*; allowed is "):
        Sampling(**{field: value})
