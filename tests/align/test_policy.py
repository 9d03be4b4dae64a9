"""PPO and GRPO as runs: they learn what is rewarded, resume to the bit, and stop with everything saved."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from alignkit import Base, chat, preferences, write_jsonl
from PIL import Image
from safetensors.torch import load_file

import foretell
from clikit import invoke
from foretell.align.episodes import Episode, Player, follow_up
from foretell.align.examples import PromptRow, read_prompts
from foretell.align.policy import Sources, find_pack, train_policy
from foretell.align.prompts import read_split
from foretell.align.rewarding import Part, Rewards, judges_kinds, load_function
from foretell.align.samples import Sample
from foretell.align.stages import tune
from foretell.align.verifiable import VERIFIERS
from foretell.chat import Conversation
from foretell.errors import AlarmError, CheckpointError, DataError, GraderError, RowError, TrainingError
from foretell.generate import Request, Result
from foretell.train.log import read_log
from foretell.tuning import GRPOConfig, LoraConfig, PPOConfig, RewardConfig, SFTConfig

FAST: dict[str, Any] = {"device": "cpu", "precision": "float32"}
TUNE: dict[str, Any] = FAST | {"sequence_length": 128, "batch_tokens": 512}
SMALL: dict[str, Any] = FAST | {"max_tokens": 24, "heldout": 0.2, "checkpoint_minutes": 1e9}


def blue(samples: Sequence[Sample]) -> list[float]:
    return [float("blue" in sample.reply) for sample in samples]


BLUE = Sources(parts=(Part("blue", blue),))


@pytest.fixture(scope="module")
def start(base: Base, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with prompts, a model that says either of two replies, and a reward model that prefers one."""
    patch = pytest.MonkeyPatch()
    patch.setattr("foretell.train.loop.peak_rate", lambda *_: 1e11)
    folder, rows = tmp_path_factory.mktemp("start"), preferences(40)
    write_jsonl(folder / "prompts.jsonl", rows)
    said = [{"messages": chat(r["prompt"], r["chosen"] if i % 2 else r["rejected"])} for i, r in enumerate(rows)]
    write_jsonl(folder / "said.jsonl", said)
    tune("sft", base.folder, folder / "said.jsonl", folder / "sft", SFTConfig(epochs=30, lr=1e-2, **TUNE))
    tune("reward", folder / "sft", folder / "prompts.jsonl", folder / "reward", RewardConfig(epochs=4, lr=3e-3, **TUNE))
    patch.undo()
    return folder


def lines(run: Path, kind: str, event: str = "train") -> list[dict[str, Any]]:
    return [line for line in read_log(run / kind / "log.jsonl") if line["event"] == event]


def weights(run: Path, kind: str) -> dict[str, bytes]:
    return {n: t.numpy().tobytes() for n, t in load_file(run / kind / "checkpoint/model.safetensors").items()}


def shown(run: Path, kind: str) -> list[Any]:
    texts = (run / kind / "samples.jsonl").read_text().splitlines()
    return [(line["step"], line["messages"]) for line in map(json.loads, texts)]


def test_ppo_learns_what_the_reward_model_prefers(start: Path, tmp_path: Path) -> None:
    settings = PPOConfig(rounds=10, prompts=16, minibatches=2, lr=1e-3, critic_lr=1e-3, kl=0.02, **SMALL)
    found = train_policy(
        "ppo", start / "sft", start / "prompts.jsonl", tmp_path / "run", settings, Sources(start / "reward")
    )
    log = lines(tmp_path / "run", "ppo")
    assert log[0]["kl"] == pytest.approx(0, abs=1e-3)  # the policy begins as its reference
    assert log[0]["approx_kl"] == pytest.approx(0, abs=1e-5)  # and each round as what drew it
    assert np.mean([line["reward"] for line in log[-6:]]) > log[0]["reward"] + 0.4
    assert found["ppo"]["metrics"]["reward"] > lines(tmp_path / "run", "ppo", "eval")[0]["reward"]
    for name in ("kl", "entropy", "rewards", "clipped", "explained_variance", "length", "ended", "timing"):
        assert name in log[-1]
    samples = shown(tmp_path / "run", "ppo")
    assert {step for step, _ in samples} == set(range(1, 11)) and samples[0][1][-1]["role"] == "assistant"
    model = foretell.load(tmp_path / "run", device="cpu")
    assert model.path == tmp_path / "run/ppo/checkpoint"


def test_a_policy_with_adapters_is_its_own_reference(start: Path, tmp_path: Path) -> None:
    lora = LoraConfig(rank=4, targets=("q_proj", "v_proj", "down_proj"))
    settings = PPOConfig(rounds=3, prompts=6, minibatches=1, lr=2e-2, critic_lr=1e-2, lora=lora, **SMALL)
    train_policy("ppo", start / "sft", start / "prompts.jsonl", tmp_path / "run", settings, Sources(start / "reward"))
    log = lines(tmp_path / "run", "ppo")
    assert log[0]["kl"] == pytest.approx(0, abs=1e-3) and abs(log[-1]["kl"]) > 1e-2
    # Each round is drawn by the adapters of that moment: the engine takes them up.
    assert [line["approx_kl"] for line in log] == pytest.approx([0, 0, 0], abs=1e-5)
    before = weights(start / "sft", "sft")
    changed = {name for name, bits in weights(tmp_path / "run", "ppo").items() if bits != before[name]}
    assert {name.rpartition(".")[2] for name in changed} == {"qkv", "down"}
    assert (tmp_path / "run/ppo/adapter/adapter_model.safetensors").is_file()


def test_grpo_learns_what_a_function_rewards(start: Path, tmp_path: Path) -> None:
    settings = GRPOConfig(rounds=10, prompts=4, samples=4, minibatches=1, lr=1e-3, kl=0.02, **SMALL)
    train_policy("grpo", start / "sft", start / "prompts.jsonl", tmp_path / "run", settings, BLUE)
    log = lines(tmp_path / "run", "grpo")
    assert np.mean([line["reward"] for line in log[-4:]]) > np.mean([line["reward"] for line in log[:2]])
    assert "groups_alike" in log[0] and "value_loss" not in log[0]


@pytest.mark.parametrize("kind", ["ppo", "grpo"])
def test_a_run_that_is_cut_off_goes_on_to_the_bit(kind: Any, start: Path, tmp_path: Path) -> None:
    """Cut off in the middle of a round, where the reward function fails in the next one."""
    both: dict[str, Any] = {"rounds": 3, "prompts": 6, "minibatches": 2, "epochs": 2, "lr": 1e-3, **SMALL}
    settings = PPOConfig(kl_target=0.5, **both) if kind == "ppo" else GRPOConfig(samples=2, **both)
    data, calls = start / "prompts.jsonl", [0]

    def failing(samples: Sequence[Sample]) -> list[float]:
        calls[0] += 1
        if calls[0] == 3:
            raise GraderError("The grader does not answer.")
        return blue(samples)

    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_policy(kind, start / "sft", data, whole, settings, BLUE)
    broken = Sources(parts=(Part("blue", failing),))
    with pytest.raises(GraderError):
        train_policy(kind, start / "sft", data, cut, settings, broken)
    saved = lines(cut, kind, "checkpoint")
    assert saved and saved[-1]["step"] > 0
    train_policy(kind, start / "sft", data, cut, settings, broken)
    assert lines(cut, kind, "resume")[0]["step"] == saved[-1]["step"]
    assert weights(whole, kind) == weights(cut, kind)
    keep = ("step", "loss", "reward", "kl", "clipped")
    assert [[line[k] for k in keep] for line in lines(whole, kind)] == [
        [line[k] for k in keep] for line in lines(cut, kind)
    ]
    assert shown(whole, kind) == shown(cut, kind)


def test_resuming_within_a_round_takes_up_its_replies(
    start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PPOConfig(rounds=2, prompts=6, minibatches=3, lr=1e-3, ptx=0.0, **SMALL | {"heldout": 0.0})
    data, steps = start / "prompts.jsonl", [0]
    train_policy("ppo", start / "sft", data, tmp_path / "whole", settings, BLUE)
    from foretell.train.trainer import Trainer

    plain = Trainer._train_step

    def interrupted(self: Trainer, batch: Any) -> None:
        plain(self, batch)
        steps[0] += 1
        if steps[0] == 2:
            signal_now()

    def signal_now() -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Trainer, "_train_step", interrupted)
    with pytest.raises(KeyboardInterrupt, match="Stopped by SIGTERM after step 2"):
        train_policy("ppo", start / "sft", data, tmp_path / "cut", settings, BLUE)
    train_policy("ppo", start / "sft", data, tmp_path / "cut", settings, BLUE)
    assert weights(tmp_path / "whole", "ppo") == weights(tmp_path / "cut", "ppo")


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda samples: [float("nan")] * len(samples), r"reward odd \(.*test_policy\.py, line \d+\) is nan"),
        (lambda samples: [1.0], "must return one a reply"),
    ],
)
def test_a_reward_that_is_none_stops_the_run_with_its_state(
    function: Callable[[Sequence[Sample]], list[float]], message: str, start: Path, tmp_path: Path
) -> None:
    calls = [0]

    def later(samples: Sequence[Sample]) -> list[float]:
        calls[0] += 1
        return blue(samples) if calls[0] == 1 else function(samples)

    settings = PPOConfig(rounds=3, prompts=4, minibatches=1, lr=1e-3, **SMALL | {"heldout": 0.0})
    with pytest.raises(TrainingError, match=message):
        train_policy(
            "ppo",
            start / "sft",
            start / "prompts.jsonl",
            tmp_path / "run",
            settings,
            Sources(parts=(Part("odd", later),)),
        )
    assert lines(tmp_path / "run", "ppo", "checkpoint")[-1]["step"] == 1


@pytest.mark.parametrize(
    ("limit", "why"), [({"most_kl": 1e-9}, "beyond most_kl"), ({"least_entropy": 50}, "collapsed")]
)
def test_a_policy_that_ran_away_stops_the_run(
    limit: dict[str, float], why: str, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = PPOConfig(rounds=6, prompts=8, minibatches=1, lr=1e-2, **SMALL, **limit)
    with pytest.raises(AlarmError, match=why) as told:
        train_policy("ppo", start / "sft", start / "prompts.jsonl", tmp_path / "run", settings, BLUE)
    assert lines(tmp_path / "run", "ppo", "checkpoint") and lines(tmp_path / "run", "ppo", "alarm")
    code, out, _ = invoke(capsys, "status", tmp_path / "run")
    assert code == 0 and "ended by an alarm; the same command resumes it" in out and f"ppo: {told.value}" in out


class Scripted:
    """Says the next of its replies to each request, as tokens of the base's tokenizer."""

    can_score = False

    def __init__(self, base: Base, replies: list[str]) -> None:
        self.base, self.replies, self.seen = base, replies, list[list[int]]()

    async def generate(self, requests: Sequence[Request]) -> Any:
        for i, request in enumerate(requests):
            assert not isinstance(request.prompt, str | Conversation)
            self.seen.append(request.prompt.ids.tolist())
            text = self.replies.pop(0)
            ids = (*self.base.tokenizer.encode(text), self.base.tokenizer.special("<|im_end|>"))
            yield Result(text, ids, "stop", request=i)


def test_episodes_of_several_turns_are_the_conversation_token_by_token(base: Base) -> None:
    row = PromptRow(Conversation.from_openai(chat("What colour is the sky?")), ("The sky?", "No!"), {"a": 1}, "here")
    generator = Scripted(base, ["It is green.", "The sky is blue.", "1 2 3"])
    (episode,) = Player(generator, base.template, 256, 24).play([(0, row)], 1, lambda i: i)
    said = chat("What colour is the sky?", "It is green.", "The sky?", "The sky is blue.", "No!", "1 2 3")
    whole = base.template.encode(Conversation.from_openai(said))
    assert episode.ids == whole.ids.tolist()[: len(episode.ids)]
    assert episode.tokens.loss.tolist() == whole.loss.tolist()[: len(episode.ids)]
    assert episode.sample.conversation.to_openai() == Conversation.from_openai(said).to_openai()
    assert episode.sample.reply == "1 2 3" and episode.sample.fields == {"a": 1} and episode.finished
    assert generator.seen[1] == episode.ids[: len(generator.seen[1])]


def test_an_episode_ends_where_the_model_reads_no_further(base: Base) -> None:
    row = PromptRow(Conversation.from_openai(chat("sky?")), ("The sky?",), {}, "here")
    generator = Scripted(base, ["blue"])
    opening = len(base.template.encode(row.prompt, add_generation_prompt=True).ids)
    limit = opening + 3 + len(follow_up(base.template, "The sky?"))
    (episode,) = Player(generator, base.template, limit, 24).play([(0, row)], 1, lambda i: i)
    assert len(episode.replies) == 1


def test_prompts_are_read_from_every_form(tmp_path: Path) -> None:
    rows = [
        {"prompt": "a", "answer": "1", "then": ["b"]},
        {"messages": chat("a", "b"), "kind": "allowed"},
        {"prompt": "a", "chosen": "b", "rejected": "c"},
        {"instruction": "a", "input": "", "output": "b"},
        {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    ]
    found = list(read_prompts(write_jsonl(tmp_path / "p.jsonl", rows)))
    assert all(isinstance(row, PromptRow) for row in found)
    assert [row.prompt.to_openai() for row in found if isinstance(row, PromptRow)] == [chat("a")] * 5
    first, second, *_ = found
    assert isinstance(first, PromptRow) and first.then == ("b",) and first.fields == {"answer": "1"}
    assert isinstance(second, PromptRow) and second.fields == {"kind": "allowed"}
    bad = [{"text": "a"}, {"prompt": ""}, {"prompt": chat("a", "b")}, {"prompt": "a", "then": "b"}, {"prompt": 3}]
    assert all(isinstance(row, RowError) for row in read_prompts(write_jsonl(tmp_path / "b.jsonl", bad)))


def test_verifiers(monkeypatch: pytest.MonkeyPatch) -> None:
    prompt = Conversation.from_openai(chat("3 + 4?"))

    def sample(reply: str, **fields: Any) -> Sample:
        return Sample(prompt, reply, prompt, fields)

    assert VERIFIERS["answer"]([sample("It is 7.", answer="7"), sample("8", answer="7")]) == [1, 0]
    labels = {"request": "disallowed", "noun": "poison", "name": "Bo", "truth": "a b"}
    assert VERIFIERS["handled"]([sample("No.", labels=labels)]) == [0]
    with pytest.raises(DataError, match="needs the field answer"):
        VERIFIERS["answer"]([sample("7")])


def test_programs_are_verified_in_the_sandbox() -> None:
    prompt = Conversation.from_openai(chat("Double n."))
    fields = {"entry": "f", "calls": ["(2,)", "(0,)"], "expected": ["4", "0"]}
    replies = ["```python\ndef f(n):\n    return 2 * n\n```", "def f(n):\n    return n + 2\n", "No."]
    try:
        found = VERIFIERS["program"]([Sample(prompt, reply, prompt, fields) for reply in replies])
    except foretell.errors.SandboxError as error:
        pytest.skip(str(error))
    assert found == [1, 0, 0]


def test_a_function_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def short(samples):\n    return [-len(s.reply) for s in samples]\n")
    part = load_function(f"{tmp_path}/mine.py:short:0.5")
    prompt = Conversation.from_openai(chat("a"))
    total, by_part = Rewards((part,))([Sample(prompt, "four", prompt)])
    assert total.tolist() == [-2] and by_part["short"].tolist() == [-4]
    for where, why in (
        ("mine.py", "FILE.py:FUNCTION"),
        (f"{tmp_path}/none.py:f", "no Python file"),
        (f"{tmp_path}/mine.py:long", "no function long"),
        (f"{tmp_path}/mine.py:short:much", "FILE.py:FUNCTION"),
    ):
        with pytest.raises(DataError, match=why):
            load_function(where)
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(DataError, match="ZeroDivisionError"):
        load_function(f"{tmp_path}/broken.py:f")


def test_the_command_line(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast = [f"--set={k}={v}" for k, v in (SMALL | {"rounds": 1, "prompts": 4, "minibatches": 1}).items()]
    common = ["--model", str(start / "sft"), "--data", str(start / "prompts.jsonl")]
    judged = ("--reward", str(start / "reward"))
    code, out, _ = invoke(capsys, "ppo", *common, "--out", tmp_path / "a", *judged, *fast)
    assert code == 0 and "KL" in out and "foretell chat" in out
    (tmp_path / "mine.py").write_text("def short(samples):\n    return [-len(s.reply) for s in samples]\n")
    mine = ("--function", f"{tmp_path}/mine.py:short")
    code, out, _ = invoke(capsys, "grpo", *common, "--out", tmp_path / "b", *mine, *fast, "--set=samples=2")
    assert code == 0 and "short" in out
    for i, (arguments, why) in enumerate(
        [
            ((), "Nothing rewards"),
            (("--function", "no"), "Built in are answer"),
            (("--function", "answer", *fast), "prompts.jsonl, line 1, answer: missing. The reward answer needs it"),
            (("--rubric", "refusal"), "--grader"),
            (("--reward", str(start / "sft"), *fast), "no reward model: "),
            (("--reward", str(tmp_path / "none")), "none is no reward model: there is no such folder"),
            (("--reward", str(tmp_path)), "is no reward model: it is no run and no checkpoint"),
            ((*mine, *fast, "--set=ptx=1"), "--ptx"),
            ((*mine, "--set=max_tokens=255"), "leave room"),
            ((*mine, "--set=max_tokens=256"), "Set it lower"),
        ]
    ):
        code, _, errors = invoke(capsys, "ppo", *common, "--out", tmp_path / f"bad{i}", *arguments)
        assert code == 2 and why in errors, errors


def test_prompts_that_a_reward_does_not_judge_are_counted(base: Base, tmp_path: Path) -> None:
    part = Part("rubric", blue, check=judges_kinds(["allowed"]))

    def split(*kinds: str | None, skip: bool = False) -> Any:
        rows = [{"prompt": f"sky {i}?"} | ({"kind": kind} if kind else {}) for i, kind in enumerate(kinds)]
        path = write_jsonl(tmp_path / "rows.jsonl", rows)
        return read_split(read_prompts(path), base.template, 200, 0.0, skip, [part, BLUE.parts[0]])

    found, _, unjudged = split("allowed", "tutor", None)
    assert len(found["train"]) == 3 and unjudged == {"rubric": 2}
    with pytest.raises(DataError, match=r"rubric judges none of the 2 prompts.*no row states one"):
        split("tutor", None)
    with pytest.raises(RowError, match=r"rows\.jsonl, line 2, kind: misspelt.*allowed is meant"):
        split("allowed", "alowed")
    assert split("allowed", "alowed", skip=True)[1] == {"misspelt": 1}


def test_what_is_mixed_in_is_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no packed rows"):
        find_pack(tmp_path)
    (tmp_path / "pack/train").mkdir(parents=True)
    (tmp_path / "pack/train/index.json").write_text("{}")
    assert find_pack(tmp_path) == tmp_path / "pack/train"


def test_another_tokenizer_is_refused(start: Path, tmp_path: Path) -> None:
    import shutil

    from foretell.model.weights import seal

    shutil.copytree(start / "reward", tmp_path / "reward")
    other = tmp_path / "reward/reward/checkpoint"
    (other / "tokenizer.json").write_text((other / "tokenizer.json").read_text() + " ")
    seal(other)
    settings = PPOConfig(rounds=1, prompts=4, **SMALL)
    with pytest.raises(CheckpointError, match="another tokenizer"):
        train_policy(
            "ppo", start / "sft", start / "prompts.jsonl", tmp_path / "run", settings, Sources(tmp_path / "reward")
        )


def test_plain_state_is_whole() -> None:
    row = PromptRow(Conversation.from_openai(chat("a")), (), {}, "here")
    episode = Episode(0, row, [1, 2, 3], np.zeros((0, 0, 0, 3), np.uint8), [2], ["x"], True, {"old": np.array([0.1])})
    again = json.loads(json.dumps(episode.plain()))
    assert again == {"row": 0, "ids": [1, 2, 3], "drawn": [2], "numbers": {"old": [0.1]}}


def test_prompts_with_pictures(start: Path, tmp_path: Path) -> None:
    def picture(shade: int) -> str:
        buffer = BytesIO()
        Image.new("RGB", (16, 16), (shade, 0, 0)).save(buffer, "PNG")
        return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"

    rows = [
        {"prompt": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": picture(20 * i)}}]}]}
        for i in range(8)
    ]
    rows += [{"prompt": "The sky?", "then": ["The sky?"]}] * 4
    data = write_jsonl(tmp_path / "pictures.jsonl", rows)
    settings = PPOConfig(rounds=2, prompts=12, minibatches=2, lr=1e-3, **SMALL | {"heldout": 0.0})
    train_policy("ppo", start / "sft", data, tmp_path / "run", settings, BLUE)
    log = lines(tmp_path / "run", "ppo")
    assert len(log) == 4 and log[0]["kl"] == pytest.approx(0, abs=1e-3) and log[-1]["kl"] != 0


def test_the_status_of_a_tuning_run(start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = invoke(capsys, "status", start / "sft")
    assert code == 0 and f"sft of {start}" not in out and "sft of" in out and out.count("done") == 2
    assert "Finished: 20" in out
    (tmp_path / "half/sft").mkdir(parents=True)
    for name in ("recipe.yaml", "pack/manifest.json"):
        (tmp_path / "half" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "half" / name).write_bytes((start / "sft" / name).read_bytes())
    code, out, _ = invoke(capsys, "status", tmp_path / "half")
    assert code == 0 and "stale" in out  # its files are gone
