"""Graders: exact on the world, learned from it, and by a model's letters, over the wire and down."""

import asyncio
import math
import random

import numpy as np
import pytest

from foretell.align.graders import Case, ClassifierGrader, ModelGrader, WorldGrader, rule_rewards
from foretell.align.rubric import load_rubric
from foretell.chat import Conversation
from foretell.data.world.hazards import DESIRED, KINDS, Hazards, write_reply
from foretell.engine.remote import Endpoint
from foretell.errors import ContextLengthError, EndpointError, GenerationError, GraderError, RubricError
from foretell.generate import Result, TokenLogprob
from foretell.measure.classify import TextClassifier
from mock_endpoint import Reply, chat_body, run, script, serve

REFUSAL = load_rubric("refusal")


def graded(n, split):
    """Cases of the world with their letters and kinds."""
    made, found = Hazards(), []
    for i in range(n):
        rng = random.Random(f"{split}/{i}")
        asked = made.request(rng, split, KINDS[i % 4])
        letter = "ABCD"[i // 4 % 4]
        found.append((Case(write_reply(asked, letter, rng), asked.text, asked.labels), letter, asked.act.kind))
    return [list(column) for column in zip(*found, strict=True)]


def test_the_world_is_graded_exactly_and_rewarded_by_kind():
    cases, letters, kinds = graded(400, "train")
    grader = WorldGrader(REFUSAL)
    p = grader.grade(cases)
    assert ["ABCD"[i] for i in p.argmax(axis=1)] == letters and set(p.ravel()) == {0, 1}
    rewards = rule_rewards(grader, cases, kinds)
    for letter, kind, reward in zip(letters, kinds, rewards, strict=True):
        assert (reward == 1) == (letter == DESIRED[kind])
    with pytest.raises(GraderError, match="no labels of the world"):
        grader.grade([Case("hello")])
    with pytest.raises(RubricError, match="18 classes"):
        WorldGrader(load_rubric("refusal_full"))


def test_a_classifier_learns_the_world_and_comes_back_from_its_file(tmp_path):
    cases, letters, _ = graded(400, "train")
    grader = ClassifierGrader.fit(REFUSAL, cases, letters)
    unseen, truth, _ = graded(200, "heldout")
    p = grader.grade(unseen)
    assert p.shape == (200, 4) and np.allclose(p.sum(axis=1), 1)
    right = sum("ABCD"[i] == letter for i, letter in zip(p.argmax(axis=1), truth, strict=True))
    assert right >= 0.9 * len(truth)
    grader.classifier.save(tmp_path / "grader.npz")
    again = ClassifierGrader(REFUSAL, TextClassifier.load(tmp_path / "grader.npz"))
    assert np.array_equal(again.grade(unseen), p)
    with pytest.raises(RubricError, match="Train one for this rubric"):
        ClassifierGrader(load_rubric("refusal_full"), grader.classifier)


class Scoring:
    """Scores letters by a table; keeps what it was asked."""

    can_score = True

    def __init__(self, table):
        self.table, self.asked = table, []

    async def generate(self, requests):
        raise AssertionError("not to be asked")
        yield

    async def score(self, prompt, continuations):
        self.asked.append((prompt, tuple(continuations)))
        return [self.table[text.strip()] for text in continuations]


class Telling:
    """Writes a reply, with the likeliest tokens where it has any."""

    can_score = False

    def __init__(self, text, tokens=()):
        self.text, self.tokens = text, tokens

    async def generate(self, requests):
        for i, _ in enumerate(requests):
            yield Result(self.text, request=i, finish_reason="stop", logprobs=self.tokens)

    async def score(self, prompt, continuations):
        raise GenerationError("cannot score")


def logs(**shares):
    return {name: math.log(share) for name, share in shares.items()}


def test_letters_are_scored_where_the_model_can():
    model = Scoring(logs(A=0.2, B=0.1, C=0.05, D=0.05))
    p = ModelGrader(REFUSAL, model).grade([Case("No.", "How?"), Case("Yes.")])
    assert p == pytest.approx(np.tile([0.5, 0.25, 0.125, 0.125], (2, 1)))
    prompt, letters = model.asked[0]
    assert isinstance(prompt, Conversation) and '"How?"' in prompt.messages[0].text and letters == tuple("ABCD")
    ModelGrader(REFUSAL, model, chat=False).grade([Case("No.")])
    prompt, letters = model.asked[-1]
    assert prompt.endswith("\n\nAnswer:") and letters == (" A", " B", " C", " D")
    assert ModelGrader(REFUSAL, model).grade([]).shape == (0, 4)
    with pytest.raises(GraderError, match="expected numbers"):
        ModelGrader(REFUSAL, Scoring(dict.fromkeys("ABCD", math.nan))).grade([Case("No.")])


def test_a_grader_that_reads_too_little_says_so():
    class Short(Telling):
        async def generate(self, requests):
            raise ContextLengthError("too long", 300, 256)
            yield

    with pytest.raises(GraderError, match=r"grader of refusal reads at most 256 tokens.*takes 300"):
        ModelGrader(REFUSAL, Short("")).grade([Case("No.")])


def test_letters_are_read_from_the_likeliest_tokens():
    top = tuple(logs(**{" B": 0.5, "B": 0.1, "C": 0.2, "The": 0.1, "D.": 0.1}).items())
    tokens = (TokenLogprob("\n", 0, -0.1), TokenLogprob(" B", 1, math.log(0.5), top))
    p = ModelGrader(REFUSAL, Telling("\n B", tokens)).grade([Case("No.")])
    assert p[0] == pytest.approx([0, 0.6 / 0.9, 0.2 / 0.9, 0.1 / 0.9])


@pytest.mark.parametrize(("said", "letter"), [("C", 2), ("The class is B.", 1), ("**D**", 3)])
def test_letters_are_read_from_words_where_no_tokens_are_told(said, letter):
    assert list(ModelGrader(REFUSAL, Telling(said)).grade([Case("No.")])[0]) == list(np.eye(4)[letter])


def test_a_reply_without_a_letter_is_an_error():
    with pytest.raises(GraderError, match="holds none of the letters A, B, C, D"):
        ModelGrader(REFUSAL, Telling("I like it.")).grade([Case("No.")])


def chat_with_logprobs():
    body = chat_body("B")
    top = [{"token": token, "logprob": math.log(p), "bytes": None} for token, p in (("B", 0.6), ("A", 0.3))]
    body["choices"][0]["logprobs"] = {"content": [{**top[0], "top_logprobs": top}]}
    return Reply(body)


def test_an_endpoint_is_asked_for_its_likeliest_tokens_and_once_more_when_it_fails():
    async def main():
        async with serve(script(Reply({"error": {"message": "busy"}}, 503), chat_with_logprobs())) as mock:
            endpoint = Endpoint(mock.url, "mock", chat=True, retries=0, random=random.Random(0))
            p = await ModelGrader(REFUSAL, endpoint).grade_async([Case("No.", "How?")])
            await endpoint.close()
            return p, mock.calls[-1].json

    p, sent = run(main())
    assert p[0] == pytest.approx([1 / 3, 2 / 3, 0, 0])
    assert sent["top_logprobs"] == 20 and sent["temperature"] == 0


def test_an_endpoint_of_chats_that_might_score_falls_back():
    async def main():
        async with serve(lambda call: chat_with_logprobs()) as mock:
            endpoint = Endpoint(mock.url, "mock", retries=0)
            assert endpoint.can_score
            p = await ModelGrader(REFUSAL, endpoint).grade_async([Case("No.")])
            await endpoint.close()
            return p

    assert run(main())[0] == pytest.approx([1 / 3, 2 / 3, 0, 0])


def test_an_endpoint_that_stays_down_is_one_clear_error():
    async def main():
        async with serve(lambda call: Reply({"error": {"message": "down for repairs"}}, 503)) as mock:
            endpoint = Endpoint(mock.url, "mock", chat=True, retries=0)
            with pytest.raises(GraderError, match=r"does not answer \(3 tries\).*down for repairs.*last checkpoint"):
                await ModelGrader(REFUSAL, endpoint).grade_async([Case("No.")])
            await endpoint.close()
            return len(mock.calls)

    assert run(main()) == 3


def test_what_can_only_fail_again_is_not_tried_again():
    class Refusing(Telling):
        calls = 0

        async def generate(self, requests):
            self.calls += 1
            raise EndpointError("the key is wrong", 401, lasting=True)
            yield

    model = Refusing("")
    with pytest.raises(GraderError, match=r"\(1 tries\): the key is wrong"):
        asyncio.run(ModelGrader(REFUSAL, model).grade_async([Case("No.")]))
    assert model.calls == 1
