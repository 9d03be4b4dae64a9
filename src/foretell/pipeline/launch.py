"""`foretell launch`: torchrun on this machine, or a Slurm job that starts it on several."""

from __future__ import annotations

import logging
import os
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foretell.errors import LaunchError, MissingExtraError
from foretell.files import write_text
from foretell.measure.machine import cores, has_torch

VERDICT = "FORETELL_VERDICT"
TRAINING = ("run", "align", "sft", "reward", "dpo", "weights graft")  # commands that several processes can share
SAVING = 120  # seconds that processes have to write a checkpoint when told to end
KEEP_ALIVE = 5  # seconds between signs of life of torchrun's agents; three missed ones mean a lost machine


@dataclass(frozen=True)
class Launch:
    """What is started on each machine.

    command: words after `foretell`. ranks, threads: processes of a machine, and threads of each. nodes: machines, or
    MIN:MAX of them. endpoint: HOST:PORT of the machine where all meet; empty for one machine alone. job: a name that
    all machines give. address: by which this machine is known to the others. join, hang, wait: seconds
    (docs/scale.md).
    """

    command: tuple[str, ...]
    ranks: int
    threads: int
    nodes: str = "1"
    endpoint: str = ""
    job: str = ""
    address: str = ""
    restarts: int = 3
    join: int = 300
    hang: int = 1800
    wait: int = 30

    def __post_init__(self) -> None:
        low, _, high = self.nodes.partition(":")
        if not (low.isdigit() and (high or low).isdigit() and 0 < int(low) <= int(high or low)):
            raise LaunchError(f"--nodes is {self.nodes!r}; expected a number of machines, or MIN:MAX, such as 2:4.")
        if self.most > 1 and not self.endpoint:
            raise LaunchError(
                f"{self.nodes} machines need a place to meet. Give --endpoint HOST:PORT, the same on all of them, or "
                "--slurm FILE to write a job that does."
            )
        host, _, port = self.endpoint.rpartition(":")
        # Port 0 stands for one that a job finds out.
        if self.endpoint and not (host and port.isdecimal() and int(port) < 1 << 16):
            raise LaunchError(f"--endpoint is {self.endpoint!r}; expected HOST:PORT, such as node1:29400.")
        for name in ("ranks", "threads", "join", "hang", "wait"):
            if getattr(self, name) < 1:
                raise LaunchError(f"--{name} is {getattr(self, name)}; expected 1 or more.")

    @property
    def most(self) -> int:
        return int(self.nodes.rpartition(":")[2])

    def environment(self) -> dict[str, str]:
        """What the processes find set, beside what is set already."""
        return {
            "OMP_NUM_THREADS": str(self.threads),
            "FORETELL_JOIN_SECONDS": str(self.join),
            "FORETELL_HANG_SECONDS": str(self.hang),
            "TORCH_CPP_LOG_LEVEL": "FATAL",  # the one message says what torch's warnings hint at
        }

    def torchrun(self) -> list[str]:
        """Arguments of torchrun."""
        meet = ["--standalone", "--local-addr=127.0.0.1"]
        if self.endpoint:
            waits = f"join_timeout={self.join},read_timeout={self.join},last_call_timeout={self.wait}"
            waits += f",keep_alive_interval={KEEP_ALIVE}"
            meet = [f"--nnodes={self.nodes}", "--rdzv-backend=c10d", f"--rdzv-endpoint={self.endpoint}"]
            meet += [f"--rdzv-id={self.job or 'foretell'}", f"--rdzv-conf={waits}"]
            if self.address:
                first = self.address == self.endpoint.rpartition(":")[0]
                meet = [*meet[:-1], f"{meet[-1]},is_host={int(first)}", f"--local-addr={self.address}"]
        numbers = [f"--nproc-per-node={self.ranks}", f"--max-restarts={self.restarts}", f"--shutdown-timeout={SAVING}"]
        return [*meet, *numbers, "-m", "foretell", *self.command]


def default_ranks() -> int:
    """Processes of this machine: one a GPU, one where there is none."""
    if not has_torch():
        raise MissingExtraError("Training", "torch")
    import torch

    return max(1, torch.cuda.device_count())


def default_threads(ranks: int) -> int:
    return max(1, cores() // ranks)


def described(plan: Launch) -> str:
    """What `start` does, as a shell command."""
    variables = [f"{name}={value}" for name, value in plan.environment().items()]
    return shlex.join([*variables, "torchrun", *plan.torchrun()])


def start(plan: Launch) -> int:
    """Run torchrun here until the processes of this machine have ended; returns the exit code.

    Raises LaunchError with the one message that ended the run, unless a process has said it.
    """
    if not has_torch():
        raise MissingExtraError("Training", "torch")
    os.environ |= plan.environment()  # torch reads its level of logging when it is imported
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous.api import RendezvousError

    logging.disable(logging.CRITICAL)  # torchrun's own account of what the one message says
    with tempfile.TemporaryDirectory(prefix="foretell-launch-") as folder:
        verdict = Path(folder) / "verdict"
        os.environ[VERDICT] = str(verdict)
        arguments = run.parse_args([f"--log-dir={folder}", *plan.torchrun()])  # type: ignore[no-untyped-call]
        try:
            run.run(arguments)  # type: ignore[no-untyped-call]
        except ChildFailedError as failed:
            if not verdict.is_file():
                return _failed(failed.failures, plan)
        except RendezvousError as error:
            raise LaunchError(_unmet(plan, error)) from error
        except SignalException as told:  # the processes have said what they saved
            return 128 + int(told.sigval)
        if verdict.is_file():
            raise LaunchError(verdict.read_text(encoding="utf-8"))
    return 0


def _failed(failures: Mapping[int, Any], plan: Launch) -> int:
    """The exit code; raises LaunchError where no process could say why it ended."""
    if any(failure.error_file_data.get("message") != "<NONE>" for failure in failures.values()):
        return 2
    if codes := [failure.exitcode for failure in failures.values() if failure.exitcode > 0]:
        return int(max(codes))  # its traceback stands above
    rank, failure = min(failures.items(), key=lambda item: item[1].timestamp)
    raise LaunchError(
        f"Rank {rank} on {socket.gethostname()} was killed by {failure.signal_name()}, and {plan.restarts} restarts "
        "were used up. SIGKILL is often the system's answer to too little memory. The same command goes on from the "
        "last checkpoint."
    )


def _unmet(plan: Launch, error: Exception) -> str:
    where = plan.endpoint or "this machine's own address"
    host = plan.address or socket.gethostname()
    if type(error).__name__ == "RendezvousTimeoutError":
        what = f"waited {plan.join} s at {where} for {plan.nodes} machines, and they did not all come"
    elif type(error).__name__ == "RendezvousClosedError":
        what = f"came to {where} when the run was over"
    else:
        what = f"did not reach {where}, where the machines meet, within {plan.join} s"
    return (
        f"Machine {host} {what}. Start the same command on every machine, with the same --nodes, --endpoint and --job; "
        "check that the name is known, the port is free, and no firewall is between."
    )


@dataclass(frozen=True)
class Job:
    """Of a Slurm job. time: its limit, as sbatch takes it. gpus: of a machine, 0 for none. cpus: of a machine. options:
    further options of sbatch. warning: seconds before the limit at which the run saves itself and queues again."""

    name: str
    time: str = "24:00:00"
    gpus: int = 0
    cpus: int = 1
    log: str = "slurm-%j.log"
    options: tuple[str, ...] = ()
    warning: int = 180

    def __post_init__(self) -> None:
        for option in self.options:  # sbatch passes over anything else without a word
            if not option.startswith("-") or "\n" in option:
                raise LaunchError(f"--sbatch is {option!r}; expected an option of sbatch, such as --sbatch=--qos=high.")


def slurm_script(plan: Launch, job: Job, folder: Path, executable: Sequence[str] = ()) -> str:
    """The job file: one `foretell launch` a machine; at the time limit, or preempted, it saves and queues again."""
    words = [*(executable or (sys.executable, "-m", "foretell")), "launch"]
    low, _, high = plan.nodes.partition(":")
    numbers = {
        "ranks": plan.ranks, "threads": plan.threads, "restarts": plan.restarts, "join": plan.join, "hang": plan.hang,
        **({"wait": plan.wait} if high else {}),
    }  # fmt: skip
    options = [f"--{name}={value}" for name, value in numbers.items()]
    # A lost machine takes its share of the run, and the job only where fewer than MIN are left.
    nodes = "$SLURM_JOB_NUM_NODES" if not high else f"{low}:$SLURM_JOB_NUM_NODES"
    header = {
        "job-name": job.name,
        "nodes": f"{low}-{high}" if high else low,
        "ntasks-per-node": 1,
        "cpus-per-task": job.cpus,
        **({"gpus-per-node": job.gpus} if job.gpus else {}),
        "time": job.time,
        "signal": f"B:TERM@{job.warning}",
        "output": job.log,
        "open-mode": "append",
        "chdir": str(folder),
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in header.items()]
    lines += ["#SBATCH --requeue", "#SBATCH --no-kill", *(f"#SBATCH {option}" for option in job.options)]
    return f"""#!/bin/bash
{chr(10).join(lines)}
set -u
first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
port=$((20000 + SLURM_JOB_ID % 20000))
srun --no-kill --kill-on-bad-exit=0 {shlex.join([*words, *options])} \\
  --nodes="{nodes}" --endpoint="$first:$port" --job="$SLURM_JOB_ID.${{SLURM_RESTART_COUNT:-0}}" \\
  {shlex.join(plan.command)} &
step=$!
told=
trap 'told=yes; kill -TERM "$step"' TERM
wait "$step"
code=$?
if [ "$told" ]; then
  wait "$step"
  code=$?
  [ "$code" -eq 0 ] || scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
"""


def write_job(path: Path, text: str) -> None:
    write_text(path, text)
    path.chmod(0o755)


def submit(path: Path) -> str:
    """Hand a job file to sbatch; returns its answer. Raises LaunchError where there is none, or it refuses."""
    try:
        done = subprocess.run(["sbatch", str(path)], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise LaunchError(
            f"sbatch is not here, so {path} was not submitted. Run `sbatch {path}` on a machine of the cluster."
        ) from error
    if done.returncode:
        raise LaunchError(
            f"sbatch refused {path}: {done.stderr.strip() or done.returncode}. Mend it, and submit again."
        )
    return done.stdout.strip()
