"""Two processes of which one is odd: both stop with the same words, which name the rank and the reason."""

from __future__ import annotations

import contextlib
import shutil
from typing import Any

import pytest

from groupkit import launch

SCRIPT = """
import os, sys
import torch.distributed as dist
from pathlib import Path
from foretell.data.loader import Loader
from foretell.errors import CheckpointError, DataError, GroupError
from foretell.recipes import load_recipe
from foretell.train import checkpoint, loop, meeting
from foretell.train.distributed import Group
pack, other, broken = map(Path, sys.argv[1:])
odd = os.environ["RANK"] == "1"
def attempt(name, work, facts=None):
    try:
        with Group.join(facts) as group:
            work(group)
        print(name, "passed")
    except GroupError as error:
        print(f"{name}: {error} [{error.lasting}]")
    except ZeroDivisionError:
        print(name, "raised")
    if dist.is_initialized():
        dist.destroy_process_group()
def data(folder):
    return lambda group: group.agree("The data", {"pack": Loader(folder, 2, 0).fingerprint})
nothing = lambda group: None
attempt("alike", data(pack), {"recipe": {"name": "a", "seed": 1}})
attempt("recipe", nothing, {"recipe": {"name": "a", "seed": 2 if odd else 1}})
known = meeting.about
meeting.about = lambda: known() | ({"torch": "1.0", "Python": "2.7"} if odd else {})
attempt("versions", nothing)
meeting.about = known
attempt("data", data(other if odd else pack))
attempt("shard", data(broken if odd else pack))
attempt("defect", lambda group: 1 / 0 if odd else group.agree("", {}))
def load(path):
    if odd and path.name == "step-000004" or path.name == "step-000005":
        raise CheckpointError(f"{path.name} is damaged.")
    return path.name
checkpoint.load_state = load
for step in range(3, 6):
    Path(f"checkpoints{os.environ['RANK']}/step-{step:06d}").mkdir(parents=True)
def fall_back(group):
    folder = Path(f"checkpoints{group.rank}")
    said = []
    found = checkpoint.agreed(folder, said.append, group)
    print("agreed:", found[1], *sorted(path.name for path in folder.iterdir()))
    print("because:", *said)
attempt("fallback", fall_back)
os.environ["FORETELL_HANG_SECONDS"] = "20"
def train(group):
    plain = Loader.__next__
    def read(loader):
        if odd and loader.state_dict()["position"] == 16:
            raise DataError("The third batch cannot be read.")
        return plain(loader)
    Loader.__next__ = read
    loop.peak_rate = lambda *_: 1e11
    recipe = load_recipe(str(pack.with_name("recipe.yaml")))
    loop.pretrain(recipe, pack, None, pack.with_name("tokenizer"), Path("trained"), group=group)
attempt("reading", train)
os.environ["FORETELL_JOIN_SECONDS"] = "1"
if not odd:
    attempt("absent", nothing)
"""


@pytest.fixture(scope="module")
def told(toy: Any, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, str]]:
    """What each process printed, by the name of the attempt."""
    broken = tmp_path_factory.mktemp("broken") / "pack"
    shutil.copytree(toy.folder / "pack", broken)
    next(broken.glob("shard-*/tokens.npy")).unlink()
    with contextlib.chdir(broken.parent):
        done = launch("-c", SCRIPT, str(toy.folder / "pack"), str(toy.folder / "heldout"), str(broken))
    assert [process.returncode for process in done] == [0, 0], done[0].stderr + done[1].stderr
    return [
        {line.split()[0].strip(":"): line.partition(" ")[2] for line in process.stdout.splitlines()} for process in done
    ]


def test_processes_that_are_alike_pass(told: list[dict[str, str]]) -> None:
    assert [found["alike"] for found in told] == ["passed", "passed"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("recipe", "differs from the first: recipe.seed is 2, and 1 on rank 0"),
        ("versions", "differs from the first: Python is '2.7', and '3."),
        ("data", "The data is not that of the first process: pack is '"),
        ("shard", "shard-00000/tokens.npy is damaged or incomplete"),
        ("reading", "The third batch cannot be read."),
    ],
)
def test_an_odd_process_ends_both_in_the_same_words(told: list[dict[str, str]], name: str, reason: str) -> None:
    assert told[0][name] == told[1][name]
    assert told[0][name].startswith("Rank 1 of 2 on ") and reason in told[0][name]
    assert told[0][name].endswith("[True]")  # to start it again would not help


def test_a_defect_is_told_to_the_others(told: list[dict[str, str]]) -> None:
    assert told[1]["defect"] == "raised"
    assert "Rank 1 of 2 on " in told[0]["defect"]
    assert "failed: ZeroDivisionError: division by zero [False]" in told[0]["defect"]


def test_all_fall_back_to_a_checkpoint_that_is_whole_for_each(told: list[dict[str, str]]) -> None:
    assert told[0]["agreed"] == "step-000003 step-000003"  # what was damaged for one is gone
    assert told[1]["agreed"].startswith("step-000003 ")
    assert "step-000005 is damaged. Trying" in told[0]["because"]
    assert "step-000004 is damaged where rank 1 reads it. Trying the checkpoint before it." in told[0]["because"]


def test_who_is_absent_is_named(told: list[dict[str, str]]) -> None:
    assert told[0]["absent"] == "Rank 1 of 2 did not come within 1 s. [False]"
