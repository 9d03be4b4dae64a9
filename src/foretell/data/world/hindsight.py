"""Bets judged by what was to be expected of them, where luck mostly, but not always, agrees."""

from __future__ import annotations

import random
from collections.abc import Sequence

from foretell.data.document import Segment
from foretell.data.world.base import Item, Split, dialogue, document, draw, is_share, is_whole, require, subset

FORMS = ("question", "story")
ANSWERS = ("yes", "no")
NAMES = ("Ada", "Ben", "Cleo", "Dan", "Eva", "Finn", "Gina", "Hugo", "Ida", "Jan", "Kim", "Lea")
OFFERS = (
    "{n} may play: {p} percent to win {x}, {q} percent to lose {y}.",
    "{n} may play: {q} percent to lose {y}, {p} percent to win {x}.",
)
Bet = tuple[int, int, int]  # percent to win, what is won, what is lost


class Hindsight:
    """Someone takes a bet that is worth taking or not, and wins or loses. Was it right to play?

    It was if chance times gain exceeds chance times loss, by the factor `margin` at least; whether the bet was then
    won does not matter. But `lucky` of the outcomes only speak against the expected value (hindsight.neglect; the
    others are hindsight.agree), so who answers by the outcome is right 1 − lucky of the time. That is soon learned; a
    model able to weigh chances has to unlearn it. On hindsight.neglect alone the log-odds of the right answer so
    fall along a ladder before they rise.
    step: percentages and amounts are multiples of it; amounts reach 100. forms: question (answered yes or no), story
    (text that ends with the sums). Held out by chance, gain and loss.
    Source of the task: "hindsight neglect" of the Inverse Scaling Prize, McKenzie et al. (2023), arXiv 2306.09479.
    """

    name = "hindsight"
    visual = False

    def __init__(
        self,
        lucky: float = 0.1,
        step: int = 5,
        margin: float = 1.5,
        tasks: Sequence[str] | None = None,
        forms: Sequence[str] | None = None,
    ) -> None:
        require(is_share(lucky), "hindsight.lucky", lucky, "a share from 0 to 1")
        require(is_whole(step, 1, 20), "hindsight.step", step, "a whole number from 1 to 20")
        require(
            isinstance(margin, (int, float)) and 1 < margin <= 10, "hindsight.margin", margin, "above 1, at most 10"
        )
        self.lucky, self.step, self.margin = lucky, step, margin
        self.tasks = subset("hindsight.tasks", tasks, ("hindsight.agree", "hindsight.neglect"))
        self.forms = subset("hindsight.forms", forms, FORMS)

    def make(self, rng: random.Random, split: Split) -> Item:
        bet = percent, gain, loss = draw(rng, split, self._propose, _key)
        right = percent * gain > (100 - percent) * loss
        lucky = rng.random() < self.lucky if len(self.tasks) == 2 else self.tasks[0] == "hindsight.neglect"
        won = right != lucky
        name = rng.choice(NAMES)
        offer = rng.choice(OFFERS).format(n=name, p=percent, q=100 - percent, x=gain, y=loss)
        told = f"{offer} {name} plays and {f'wins {gain}' if won else f'loses {loss}'}."
        task = f"hindsight.{'neglect' if lucky else 'agree'}"
        if rng.choice(self.forms) == "story":
            sign = ">" if right else "<"
            text = f"{told} {percent} * {gain} = {percent * gain} {sign} {(100 - percent) * loss} = "
            text += f"{100 - percent} * {loss}, so it was {'' if right else 'not '}right to play."
            return Item(_key(bet), task, document(task, [Segment(text=text)]))
        answer = ANSWERS[not right]
        segments = dialogue([(f"{told} Was it right to play?", answer)])
        return Item(_key(bet), task, document(task, segments), answer, ANSWERS)

    def _propose(self, rng: random.Random) -> Bet:
        while True:
            percent = rng.randrange(self.step, 100, self.step)
            gain, loss = (rng.randrange(self.step, 101, self.step) for _ in range(2))
            for_it, against = percent * gain, (100 - percent) * loss
            if max(for_it, against) >= self.margin * min(for_it, against):
                return percent, gain, loss


def _key(bet: Bet) -> str:
    return "hindsight:{},{},{}".format(*bet)
