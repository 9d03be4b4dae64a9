"""`foretell launch`: what it starts, the Slurm job it writes, and two machines of which one is lost."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import faultkit
from clikit import invoke
from faultkit import foretell
from foretell.errors import LaunchError, TrainingError
from foretell.pipeline.launch import Job, Launch, described, slurm_script, submit
from foretell.recipes import load_recipe
from foretell.train import loop
from foretell.train.log import read_log
from toy import toy as toy

# What a Slurm of two machines does with a job, on this one.
SBATCH = """#!/bin/bash
export SLURM_JOB_ID=4711 SLURM_JOB_NODELIST=both SLURM_JOB_NUM_NODES=2
echo "Submitted batch job 4711"
(export BATCH=$BASHPID; exec bash "$1") >> slurm-4711.log 2>&1
"""
SCONTROL = """#!/bin/bash
[ "$1 $2" = "show hostnames" ] && echo 127.0.0.1 && echo 127.0.0.1
[ "$1" = requeue ] && echo "requeued $2"
"""
SRUN = """#!/bin/bash
while [[ "$1" == --* ]]; do shift; done
"$@" & first=$!
"$@" & second=$!
trap 'kill -TERM $first $second' TERM
wait $first; code=$?
wait $second || code=$?
exit $code
"""


def test_one_machine_needs_no_place_to_meet() -> None:
    plan = Launch(("run", "quickstart", "--out", "a b"), ranks=2, threads=4, hang=60)
    words = shlex.split(described(plan))
    assert {"OMP_NUM_THREADS=4", "FORETELL_HANG_SECONDS=60"} <= set(words)
    at = words.index("torchrun")
    assert {"--standalone", "--nproc-per-node=2", "--max-restarts=3"} <= set(words[at:])
    assert words[-6:] == ["-m", "foretell", "run", "quickstart", "--out", "a b"]


def test_machines_meet_where_they_are_told() -> None:
    plan = Launch(("run", "x"), 8, 1, nodes="2:4", endpoint="node1:29400", job="j7", address="10.0.0.2", join=90)
    assert plan.torchrun()[:5] == [
        "--nnodes=2:4",
        "--rdzv-backend=c10d",
        "--rdzv-endpoint=node1:29400",
        "--rdzv-id=j7",
        "--rdzv-conf=join_timeout=90,read_timeout=90,last_call_timeout=30,keep_alive_interval=5,is_host=0",
    ]
    assert "--local-addr=10.0.0.2" in plan.torchrun()
    first = replace(plan, address="node1")
    assert first.torchrun()[4].endswith(",is_host=1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": "two"}, "expected a number of machines, or MIN:MAX"),
        ({"nodes": "4:2"}, "expected a number of machines, or MIN:MAX"),
        ({"nodes": "2"}, "need a place to meet. Give --endpoint"),
        ({"endpoint": "node1"}, "expected HOST:PORT"),
        ({"endpoint": "node1:65536"}, "expected HOST:PORT"),
        ({"endpoint": ":29400"}, "expected HOST:PORT"),
        ({"ranks": 0}, "--ranks is 0"),
        ({"hang": 0}, "--hang is 0"),
    ],
)
def test_what_cannot_be_started_is_said_before(changes: dict[str, Any], message: str) -> None:
    settings: dict[str, Any] = {"command": ("run", "x"), "ranks": 1, "threads": 1}
    with pytest.raises(LaunchError, match=message):
        Launch(**settings | changes)


def test_the_command_line_passes_on_what_is_not_its_own(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    own = ("launch", "--ranks", 2, "--dry-run")
    code, out, _ = invoke(capsys, *own, "quickstart", "--set", "train.tokens=1e6", "--out", tmp_path)
    assert code == 0 and out.endswith(f"-m foretell run quickstart --set train.tokens=1e6 --out {tmp_path}\n")
    code, out, _ = invoke(capsys, *own, "sft", "--model", "m", "--data", "d", "--out", "o")
    assert code == 0 and out.endswith("-m foretell sft --model m --data d --out o\n")
    code, out, _ = invoke(capsys, *own, "weights", "graft", "fresh:64,16,32,1", "lm", "--data", "d")
    assert code == 0 and out.endswith("-m foretell weights graft fresh:64,16,32,1 lm --data d\n")
    code, _, err = invoke(capsys, "launch", "--ranks", 2, "--submit", "quickstart")
    assert code == 2 and "Name one with --slurm FILE" in err
    job = tmp_path / "job.sh"
    code, out, _ = invoke(capsys, "launch", "--ranks", 2, "--nodes", 4, "--slurm", job, "quickstart")
    assert code == 0 and out == f"{job} is written. Submit it with: sbatch {job}\n"


def test_a_job_file_is_a_shell_script_with_what_slurm_reads(tmp_path: Path) -> None:
    plan = Launch(("run", "my recipe.yaml"), ranks=8, threads=2, nodes="2:4", endpoint="first:0", restarts=5)
    text = slurm_script(plan, Job("big", time="12:00:00", gpus=8, cpus=16, options=("--qos=high",)), tmp_path)
    (tmp_path / "job.sh").write_text(text)
    subprocess.run(["bash", "-n", tmp_path / "job.sh"], check=True)
    header = [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]
    assert {
        "--job-name=big", "--nodes=2-4", "--ntasks-per-node=1", "--gpus-per-node=8", "--cpus-per-task=16",
        "--time=12:00:00", "--signal=B:TERM@180", "--requeue", "--no-kill", "--qos=high", f"--chdir={tmp_path}",
    } <= set(header)  # fmt: skip
    assert "--ranks=8 --threads=2 --restarts=5" in text and "run 'my recipe.yaml' &" in text
    assert '--nodes="2:$SLURM_JOB_NUM_NODES"' in text
    without = slurm_script(Launch(("run", "x"), 1, 1, nodes="3", endpoint="first:0"), Job("small"), tmp_path)
    assert "gpus" not in without and "--nodes=3\n" in without and "--wait" not in without


def test_without_slurm_the_next_step_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LaunchError, match="sbatch is not here"):
        submit(tmp_path / "job.sh")
    (tmp_path / "sbatch").write_text("#!/bin/sh\necho 'invalid partition' >&2\nexit 1\n")
    (tmp_path / "sbatch").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(LaunchError, match=r"refused .*job\.sh: invalid partition"):
        submit(tmp_path / "job.sh")


def port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def nearly(run: Path, recipe: Path, out: Path) -> None:
    """The losses of a run, over whatever processes it had, are those of one process up to rounding."""
    loop.pretrain(load_recipe(str(recipe)), run / "pack/train", run / "pack/heldout", run / "tokenizer", out)
    found, alone = (
        {line["step"]: line["loss"] for line in read_log(log) if line["event"] == "train"}
        for log in (run / "pretrain/log.jsonl", out / "log.jsonl")
    )
    assert found == {step: pytest.approx(loss, rel=1e-5) for step, loss in alone.items()}
    there = load_file(out / "checkpoint/model.safetensors")
    for name, tensor in load_file(run / "pretrain/checkpoint/model.safetensors").items():
        assert (tensor - there[name]).abs().max() <= 1e-5, name


# A store that is not there yet is tried again after longer and longer pauses.
AFTER = r'until (: < "/dev/tcp/${0/:/\/}") 2> /dev/null; do sleep 0.2; done; exec "$@"'


def pair(endpoint: str, recipe: Path, run: Path, address: str) -> list[str]:
    """The command of one of two machines; the one that does not have the store waits for it."""
    own = ("--ranks=1", "--threads=1", "--nodes=1:2", "--job=pair", "--hang=20", "--wait=60")
    meet = (f"--endpoint={endpoint}", f"--address={address}")
    words = (*own, *meet, recipe, "--out", run, "--until", "pretrain")
    wait = [] if address == endpoint.split(":")[0] else ["bash", "-c", AFTER, endpoint]
    return [*wait, sys.executable, "-m", "foretell", "launch", *map(str, words)]


def survivor(machines: Sequence[Sequence[str]], envs: Sequence[dict[str, str]]) -> str:
    """What the first of two machines says, which goes on alone to the end."""
    first, second = (
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command, env in zip(machines, envs, strict=True)
    )
    try:
        said, _ = first.communicate(timeout=900)
    finally:
        for machine in (first, second):
            machine.kill()
        second.communicate()
    assert first.returncode == 0, said
    return said


@pytest.mark.slow
def test_two_machines_of_which_one_is_lost(toy: Any, tmp_path: Path) -> None:
    recipe, run = faultkit.recipe(toy, tmp_path), tmp_path / "run"
    env = faultkit.environment(tmp_path / "site", {"0": {"kind": "lose", "rank": 1, "step": 9}})
    # The first one is where they meet, and its address sorts first, which makes it the first rank.
    endpoint = f"127.0.0.1:{port()}"
    said = survivor([pair(endpoint, recipe, run, f"127.0.0.{number}") for number in (1, 2)], [env, env])
    assert "Rank 1 of 2 on " in said and "is gone: killed, out of memory, or cut off" in said
    assert ranks(run) == [2, 1]
    nearly(run, recipe, tmp_path / "one")


def ranks(run: Path) -> list[int]:
    log = read_log(run / "pretrain/log.jsonl")
    return [line["processes"] for line in log if line["event"] in ("start", "resume")]


@contextmanager
def two_hosts() -> Iterator[list[list[str]]]:
    """Network namespaces joined by a cable, with names of their own; commands that run a command in each."""
    ip = lambda words: subprocess.run(["ip", *words.split()], check=True, capture_output=True)  # noqa: E731
    try:
        ip("netns add foretell1")
        ip("netns add foretell2")
        ip("link add cable1 netns foretell1 type veth peer name cable2 netns foretell2")
        for number in (1, 2):
            ip(f"-n foretell{number} address add 10.77.0.{number}/24 dev cable{number}")
            ip(f"-n foretell{number} link set cable{number} up")
            ip(f"-n foretell{number} link set lo up")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("network namespaces need root and iproute2")
    named = 'hostname "$0"; exec "$@"'
    try:
        yield [
            ["ip", "netns", "exec", f"foretell{n}", "unshare", "--uts", "sh", "-c", named, f"host{n}"] for n in (1, 2)
        ]
    finally:
        for number in (1, 2):
            with suppress(subprocess.CalledProcessError):
                ip(f"netns delete foretell{number}")


@pytest.mark.slow
def test_a_machine_whose_cable_is_pulled(toy: Any, tmp_path: Path) -> None:
    recipe, run = faultkit.recipe(toy, tmp_path), tmp_path / "run"
    env = faultkit.environment(tmp_path / "site", {"0": {"kind": "cut", "rank": 1, "step": 9, "device": "cable2"}})
    with two_hosts() as hosts:
        commands = [[*host, *pair("10.77.0.1:29400", recipe, run, f"10.77.0.{n}")] for n, host in enumerate(hosts, 1)]
        said = survivor(commands, [env | {"GLOO_SOCKET_IFNAME": f"cable{number}"} for number in (1, 2)])
    assert "Rank 1 of 2 on host2 is gone: killed, out of memory, or cut off from the network (no sign of life" in said
    assert ranks(run) == [2, 1]
    nearly(run, recipe, tmp_path / "one")


@pytest.mark.slow
def test_a_slurm_job_saves_itself_at_its_limit_and_goes_on(toy: Any, tmp_path: Path) -> None:
    bin = tmp_path / "bin"
    bin.mkdir()
    for name, text in {"sbatch": SBATCH, "scontrol": SCONTROL, "srun": SRUN}.items():
        (bin / name).write_text(text)
        (bin / name).chmod(0o755)
    recipe, run = faultkit.recipe(toy, tmp_path), tmp_path / "run"
    # The process of the batch script is told, as Slurm does before the limit.
    env = faultkit.environment(tmp_path / "site", {"0": {"kind": "limit", "rank": 0, "step": 9}})
    env |= {"PATH": f"{bin}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
    command = [
        sys.executable, "-m", "foretell", "launch", "--ranks=1", "--threads=1", "--nodes=2", "--gpus=0", "--submit",
        "--slurm=job.sh", recipe, "--out", run, "--until", "pretrain",
    ]  # fmt: skip
    for attempt in range(2):
        done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, timeout=900, check=False)
        log = (tmp_path / "slurm-4711.log").read_text()
        assert "Traceback" not in log, log
        if not attempt:
            assert "Stopped by SIGTERM after step 10 of 24" in log and log.count("requeued 4711") == 1, log
            env["FAULTS"] = "{}"
    assert done.returncode == 0 and "Submitted batch job 4711" in done.stdout, done.stderr
    nearly(run, recipe, tmp_path / "one")


@pytest.mark.slow
def test_bad_input_ends_a_launch_with_one_message_and_no_restart(toy: Any, tmp_path: Path) -> None:
    recipe, run = faultkit.recipe(toy, tmp_path), tmp_path / "run"
    own = ("launch", "--ranks=2", "--threads=1", "--join=60")
    odd = faultkit.environment(tmp_path / "site", {"0": {"kind": "version", "rank": 1}})
    even = odd | {"FAULTS": "{}"}
    meet = ("--nodes=2", "--join=3")
    cases = {
        "Rank 1 of 2 on ": foretell(*own, recipe, "--out", run, env=odd),
        "makes 7 rows of 64 tokens, which 2 processes cannot": foretell(
            *own, recipe, "--out", run, "--set", f"train.batch_tokens={7 * 64}", env=even
        ),
        "waited 3 s at 127.0.0.1": foretell(
            *own, *meet, f"--endpoint=127.0.0.1:{port()}", recipe, "--out", run, env=even
        ),
        "did not reach 192.0.2.1:29400, where the machines meet, within 3 s": foretell(
            *own, *meet, "--endpoint=192.0.2.1:29400", recipe, "--out", run, env=even
        ),
    }
    for reason, done in cases.items():
        started, *said = done.stderr.strip().splitlines()
        assert "torchrun" in started
        assert done.returncode == 2 and len(said) == 1 and said[0].startswith("Error: "), done.stderr
        assert reason in said[0] and "Traceback" not in done.stderr
    assert "differs from the first: torch is '0.0.1', and '" in cases["Rank 1 of 2 on "].stderr


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        (
            ["parallel.shard=2"],
            r"are 2 processes, but 1 are running\. Start 2 of them .on one machine: foretell launch --ranks 2",
        ),
        (["train.device=mps"], "set to mps, but this torch"),
    ],
)
def test_what_cannot_be_trained_is_said_before_data_are_made(tmp_path: Path, changes: list[str], why: str) -> None:
    from foretell.pipeline import run_recipe

    recipe = load_recipe("quickstart", changes)
    if recipe.train.device == "mps" and torch.backends.mps.is_available():
        pytest.skip("it can be trained here")
    with pytest.raises(TrainingError, match=why):
        run_recipe(recipe, tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()


def test_launch_knows_what_it_cannot_launch(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, why in (
        (("ppo", "--model", "x"), "ppo runs in a single process. launch takes a recipe, or run, align"),
        (("weights", "export", "x"), "weights runs in a single process. launch takes a recipe, or run,"),
        (("missing.yaml",), "No recipe file missing.yaml"),
        (("quickstart", "--ranks", "2"), "--ranks is an option of launch: put it before quickstart"),
        (("--ranks", "0", "quickstart"), "--ranks is 0; expected 1 or more"),
        (("--slurm", tmp_path / "job.sh", "quickstart"), "--slurm needs --ranks"),
        (("--slurm", "job.sh", "--ranks", "2", "--sbatch", "qos=x", "quickstart"), "--sbatch is 'qos=x'; expected an"),
    ):
        code, out, err = invoke(capsys, "launch", "--dry-run", *words)
        assert code and why in " ".join((out + err).split()), (words, out, err)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        *((words, "needs a job file. Name one with --slurm FILE") for words in (
            ("--submit",), ("--time", "1:00:00"), ("--time", "24:00:00"), ("--gpus", "0"), ("--sbatch=--qos=high",),
        )),
        *(((*words, "--slurm", "job.sh"), "is for runs started by hand; the job of --slurm") for words in (
            ("--endpoint", "node1:29400"), ("--job", "mine"), ("--address", "10.0.0.2"),
        )),
        (("--job", "mine"), "--job is for several machines. Give --endpoint HOST:PORT"),
        (("--address", "10.0.0.2"), "--address is for several machines. Give --endpoint HOST:PORT"),
        (("--wait", "60", "--nodes", "2", "--endpoint", "a:1"), "--wait needs a range of machines; --nodes is 2"),
        (("--wait", "60", "--nodes", "2", "--slurm", "job.sh"), "--wait needs a range of machines; --nodes is 2"),
    ],
)  # fmt: skip
def test_an_option_that_would_change_nothing_is_refused(
    words: Sequence[str], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = invoke(capsys, "launch", "--dry-run", "--ranks", 2, *words, "quickstart")
    assert code == 2 and not out and f"Error: {words[0].partition('=')[0]} " in err and why in err, err


def test_options_that_change_something_are_taken(capsys: pytest.CaptureFixture[str]) -> None:
    by_hand = ("--nodes", "1:2", "--endpoint", "node1:29400", "--job", "mine", "--address", "10.0.0.2", "--wait", 60)
    code, out, _ = invoke(capsys, "launch", "--dry-run", "--ranks", 2, *by_hand, "quickstart")
    assert code == 0 and "last_call_timeout=60" in out and "--local-addr=10.0.0.2" in out
    job = ("--nodes", "2:4", "--slurm", "job.sh", "--time", "1:00:00", "--gpus", 0, "--sbatch=--qos=x", "--wait", 60)
    code, out, _ = invoke(capsys, "launch", "--dry-run", "--ranks", 2, *job, "quickstart")
    assert code == 0 and "--wait=60" in out and "gpus" not in out and "--time=1:00:00" in out
