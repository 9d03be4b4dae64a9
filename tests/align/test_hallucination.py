"""Hallucination pairs: kept once a listing finds nothing, within the rounds; dropped, or never made, otherwise."""

import pytest

from foretell.align.hallucination import LIST, hallucination_pairs, read_list
from foretell.chat import Conversation
from foretell.generate import Result


class Writer:
    """Answers "x" and n flaws; each rewrite leaves out `mends` of them; a listing names those that are left."""

    can_score = False

    def __init__(self, mends=1):
        self.mends, self.rewrites, self.calls = mends, 0, 0

    async def generate(self, requests):
        self.calls += 1
        for i, request in enumerate(requests):
            messages = request.prompt.messages
            asked = messages[-1].text
            if len(messages) == 1:
                text = "x" + "!" * int(asked)
            elif asked == LIST:
                flaws = messages[-2].text.count("!")
                text = "\n".join(f"{k + 1}. flaw {k}" for k in range(flaws)) or "None."
            else:
                self.rewrites += 1
                assert asked.count("- flaw") == messages[-2].text.count("!")
                text = messages[-2].text[: -self.mends or None]
            yield Result(text, request=i, finish_reason="stop")


def prompts(*flaws):
    return [Conversation.from_openai([{"role": "user", "content": str(n)}]) for n in flaws]


def test_pairs_are_kept_once_clean_within_the_rounds():
    writer = Writer()
    pairs = hallucination_pairs(writer, prompts(0, 2, 5, 6, 1))
    assert [(len(pair.rejected) - 1, pair.chosen, pair.rounds) for pair in pairs] == [
        (2, "x", 2),
        (5, "x", 5),
        (1, "x", 1),
    ]
    assert pairs[0].listed == ("flaw 0", "flaw 1")
    assert writer.rewrites == 2 + 5 + 5 + 1
    assert writer.calls == 2 + 2 * 5
    assert pairs[0].row() == {
        "prompt": [{"role": "user", "content": "2"}],
        "chosen": [{"role": "assistant", "content": "x"}],
        "rejected": [{"role": "assistant", "content": "x!!"}],
    }


def test_fewer_rounds_keep_fewer_pairs_and_clean_answers_cost_two_calls():
    assert [pair.rounds for pair in hallucination_pairs(Writer(), prompts(1, 3), rounds=2)] == [1]
    writer = Writer()
    assert hallucination_pairs(writer, prompts(0, 0)) == [] and writer.calls == 2
    assert hallucination_pairs(Writer(mends=0), prompts(2)) == []


@pytest.mark.parametrize(
    ("reply", "items"),
    [
        ("none", ()),
        ("None.", ()),
        ("- none", ()),
        ("No hallucinations!", ()),
        ("", ()),
        ("- a\n\n* b\n3) c", ("a", "b", "c")),
        ("None of the dates are right.", ("None of the dates are right.",)),
        ("none\nbut one", ("none", "but one")),
    ],
)
def test_lists_are_read(reply, items):
    assert read_list(reply) == items
