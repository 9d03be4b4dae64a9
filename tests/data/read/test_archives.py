"""Git repositories, webdataset tars, and data sets of the hub by files of their published form."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import subprocess
import tarfile
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from foretell.data.document import Document
from foretell.data.read import read, units
from foretell.data.read.sections import ChatRead, GitRead, HubRead, PairsRead, PythonRead
from foretell.errors import DataError
from readkit import everything, kept, png, reasons, text

AUTHOR = {
    "GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@b",
    "GIT_AUTHOR_DATE": "2020-02-03T04:05:06Z", "GIT_COMMITTER_DATE": "2020-02-03T04:05:06Z",
    "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_SYSTEM": "/dev/null", "PATH": "/usr/bin:/bin:/usr/local/bin",
}  # fmt: skip
MIT = "Permission is hereby granted, free of charge, ... The above copyright notice and this permission notice ..."


def git(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(folder), *arguments], env=AUTHOR, check=True, capture_output=True)
    return done.stdout.decode().strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "repo"
    files = {
        "LICENSE": MIT,
        "README.md": "# Words\n![x](img/x.png)\n",
        "src/a.py": "x = 1\n",
        "src/b.py": "# SPDX-License-Identifier: ISC\ny = 2\n",
        "vendor/COPYING": "GNU GENERAL PUBLIC LICENSE Version 2, June 1991",
        "vendor/c.c": "int z;\n",
        "big.txt": "version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
        "zażółć.txt": "name\n",
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)
    (folder / "img").mkdir()
    (folder / "img/x.png").write_bytes(png())
    (folder / "link.txt").symlink_to("/etc/passwd")
    git(tmp_path, "init", "-q", "repo")
    git(folder, "remote", "add", "origin", "https://user:secret@host/a/repo.git")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    (folder / "untracked.txt").write_text("not this")
    (folder / "src/a.py").write_text("changed, not committed")
    return folder


def test_a_git_checkout(checkout: Path) -> None:
    source = GitRead(path=str(checkout), unit_bytes=30)
    found = {d.labels["path"]: d for d in kept(source)}
    sha = git(checkout, "rev-parse", "HEAD")
    assert {name: d.license for name, d in found.items()} == {
        "README.md": "MIT", "src/a.py": "MIT", "src/b.py": "ISC", "vendor/c.c": "GPL-2.0-only", "zażółć.txt": "MIT"
    }  # fmt: skip
    assert text(found["src/a.py"]) == "x = 1\n" and found["README.md"].segments[1].image == png()
    assert {d.date for d in found.values()} == {"2020-02-03"}
    assert found["src/a.py"].labels["url"] == f"https://host/a/repo/blob/{sha}/src/a.py"
    assert found["src/a.py"].labels["locator"] == f"{sha[:12]}:src/a.py"
    assert reasons(source) == {"read.file-kind": 3, "read.lfs": 1, "read.link": 1}
    assert len(everything(source)) == len(git(checkout, "ls-files").splitlines())


def test_a_revision_that_moves_or_is_missing_stops(checkout: Path, tmp_path: Path) -> None:
    source = GitRead(path=str(checkout))
    (work,) = units(source)
    git(checkout, "commit", "-qam", "second")
    assert text(next(r for r in read(source, work) if r.id.endswith("src/a.py"))) == "x = 1\n"  # type: ignore[arg-type]
    other = GitRead(path=str(checkout), name="again")
    with pytest.raises(DataError, match="when this was begun"):
        list(read(other, work))
    for wrong in (GitRead(path=str(checkout), revision="nosuch"), GitRead(path=str(tmp_path))):
        with pytest.raises(DataError, match="could not be read as a git repository"):
            units(wrong)


def tar(path: Path, files: dict[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def test_image_text_pairs(tmp_path: Path) -> None:
    about = {"caption": "from json", "url": "http://a/x.png", "license": "CC-BY-4.0", "lang": "en"}
    files = {
        "d/001.png": png(),
        "d/001.txt": b" a red square ",
        "d/002.json": json.dumps(about).encode(),
        "d/002.png": png(),
        "d/003.txt": b"text alone",
        "d/004.png": png(),
        "d/005.png": b"no image",
        "d/005.txt": b"x",
        "d/006.png": png(),
        "d/006.txt": b"\xff",
        "d/007.png": png(),
        "d/007.json": b"{",
    }
    for name in ("a.tar", "b.tar.gz"):
        tar(tmp_path / name, files)
        source = PairsRead(path=str(tmp_path / name))
        one, two = kept(source)
        assert [s.text or s.image for s in one.segments] == [png(), "a red square"] and one.id == f"{name}!d/001"
        assert (text(two), two.license, two.language) == ("[image]from json", "CC-BY-4.0", "en")
        assert two.labels["url"] == "http://a/x.png" and two.labels["locator"] == f"{name}!d/002"
        assert reasons(source) == {
            "read.no-image": 1, "read.no-text": 1, "read.image": 1, "read.encoding": 1, "read.json": 1
        }  # fmt: skip
    assert kept(PairsRead(path=str(tmp_path / "a.tar"), order="text"))[0].segments[0].text == "a red square"


def test_a_name_that_comes_again_in_a_tar_is_another_sample(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name, content in (("a.png", png()), ("a.txt", b"one"), ("a.png", png()), ("a.txt", b"two")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    assert [text(d) for d in kept(PairsRead(path=str(tmp_path)))] == ["[image]one", "[image]two"]


def test_damaged_tars(tmp_path: Path) -> None:
    samples = {f"{n}.{kind}": png() if kind == "png" else b"x" for n in range(4) for kind in ("png", "txt")}
    tar(tmp_path / "a.tar", samples)
    data = bytearray((tmp_path / "a.tar").read_bytes())
    data[4 * 512 : 4 * 512 + 100] = b"\xff" * 100  # the second sample's first header
    (tmp_path / "a.tar").write_bytes(data)
    source = PairsRead(path=str(tmp_path / "a.tar"))
    assert [d.id for d in kept(source)][-2:] == ["a.tar!2", "a.tar!3"]
    assert reasons(source)["read.tar"] == 1
    (tmp_path / "a.tar").write_bytes(data[:300])
    assert sum(reasons(source).values()) == 1
    (tmp_path / "a.tar").write_bytes(b"")
    assert sum(reasons(source).values()) == 1
    (tmp_path / "b.tar.gz").write_bytes(gzip.compress(b"not a tar" * 1000)[:-9])
    assert reasons(PairsRead(path=str(tmp_path / "b.tar.gz")))["read.gzip"] == 1


FINEWEB = {
    "text": "A page.", "id": "<urn:uuid:1>", "dump": "CC-MAIN-2013-20", "url": "http://a/b",
    "file_path": "s3://commoncrawl/x.warc.gz", "language": "en", "language_score": 0.9, "token_count": 2,
    "score": 3.5, "int_score": 4,
}  # fmt: skip
STACK = {
    "hexsha": "ab12", "size": 6, "ext": "py", "lang": "Python", "max_stars_repo_path": "src/a.py",
    "max_stars_repo_name": "me/mine", "max_stars_repo_head_hexsha": "cd34",
    "max_stars_repo_licenses": ["MIT", "Apache-2.0"], "max_stars_count": 3,
    "max_stars_repo_stars_event_min_datetime": "2018-03-04T05:06:07.000Z", "content": "x = 1\n",
    "avg_line_length": 6.0, "max_line_length": 6, "alphanum_fraction": 0.3,
}  # fmt: skip
OBELICS = {
    "images": ["http://a/x.png", None], "texts": [None, "words"],
    "metadata": json.dumps([{"alt_text": "alt", "src": "http://a/x.png"}, None]),
    "general_metadata": json.dumps({"url": "http://a/", "warc_filename": "crawl-data/CC-MAIN-2021-04/x.warc.gz"}),
}  # fmt: skip
SMOLTALK = {
    "messages": [{"content": "q", "role": "user"}, {"content": "a", "role": "assistant"}], "source": "smol-magpie-ultra"
}  # fmt: skip
CAULDRON = {
    "images": [{"bytes": png(), "path": None}],
    "texts": [{"user": "What is it?", "assistant": "A square.", "source": "VQAv2"}],
}


def hub(tmp_path: Path, dataset: str, rows: list[Any], **settings: Any) -> HubRead:
    pytest.importorskip("datasets")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000.parquet")
    return HubRead(path=str(tmp_path), dataset=dataset, **settings)


def hub_one(tmp_path: Path, dataset: str, row: Any, **settings: Any) -> Document:
    (found,) = kept(hub(tmp_path, dataset, [row], **settings))
    return found


def test_fineweb_edu(tmp_path: Path) -> None:
    found = hub_one(tmp_path, "HuggingFaceFW/fineweb-edu", FINEWEB)
    assert (found.id, text(found), found.license, found.language, found.date) == (
        "<urn:uuid:1>", "A page.", "ODC-By-1.0", "en", "2013-05-13",
    )  # fmt: skip
    assert found.labels["url"] == "http://a/b" and found.labels["score"] == "3.5"


def test_the_stack(tmp_path: Path) -> None:
    found = hub_one(tmp_path, "bigcode/the-stack-dedup", STACK)
    assert (found.id, text(found), found.license, found.date) == ("ab12", "x = 1\n", "Apache-2.0 AND MIT", "2018-03-04")
    assert found.labels["path"] == "src/a.py" and found.labels["lang"] == "Python" and found.language == "und"
    with pytest.raises(DataError, match="Software Heritage"):
        units(HubRead(dataset="bigcode/the-stack-v2"))


def test_obelics(tmp_path: Path) -> None:
    found = hub_one(tmp_path, "HuggingFaceM4/OBELICS", OBELICS)
    assert text(found) == "words" and found.labels["images_absent"] == "1"
    assert (found.labels["url"], found.date, found.license) == ("http://a/", "2021-01-25", "CC-BY-4.0")
    with_bytes = OBELICS | {"images": [{"bytes": png()}, None]}
    found = hub_one(tmp_path, "HuggingFaceM4/OBELICS", with_bytes)
    assert found.segments[0].image == png() and found.segments[0].alt == "alt"


def test_smoltalk_and_the_cauldron(tmp_path: Path) -> None:
    found = hub_one(tmp_path, "HuggingFaceTB/smoltalk", SMOLTALK)
    assert [(m.role, m.text) for m in found.conversation().messages] == [("user", "q"), ("assistant", "a")]
    assert found.license == "unknown" and found.labels["source"] == "smol-magpie-ultra"
    found = hub_one(tmp_path, "HuggingFaceM4/the_cauldron", CAULDRON, license="CC-BY-4.0")
    assert [(s.role, s.text or s.image) for s in found.segments] == [
        ("user", png()), ("user", "What is it?"), ("assistant", "A square.")
    ]  # fmt: skip
    assert found.license == "CC-BY-4.0" and found.labels["origin"] == "VQAv2"


def test_any_other_data_set_and_damage(tmp_path: Path) -> None:
    rows = [{"content": "a", "license": "MIT"}, {"content": " ", "license": None}]
    source = hub(tmp_path, "me/mine", rows, max_rows=5)
    assert [(text(d), d.license, d.labels["locator"]) for d in kept(source)] == [
        ("a", "MIT", "train-00000.parquet:0")
    ]  # fmt: skip
    assert reasons(source) == {"read.empty": 1}
    (tmp_path / "b.jsonl").write_text('{"text": "json"}\n')
    (tmp_path / "c.parquet").write_bytes(b"PAR1 broken")
    (tmp_path / "README.md").write_text("card")
    assert [text(d) for d in kept(source)] == ["json", "a"]
    assert reasons(source) == {"read.empty": 1, "read.damaged": 1, "read.file-kind": 1}
    bad = hub(tmp_path, "HuggingFaceM4/the_cauldron", [CAULDRON | {"images": [{"bytes": b"no", "path": None}]}])
    assert reasons(bad)["read.image"] == 1


def test_a_shard_is_a_unit_and_a_failing_network_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    rows = [{"text": f"{n}"} for n in range(10)]
    whole = datasets.Dataset.from_list(rows).to_iterable_dataset(num_shards=3)
    monkeypatch.setattr(datasets, "load_dataset", lambda *a, **k: whole)
    source = HubRead(dataset="me/mine")
    assert len(units(source)) == 3 and sorted(text(d) for d in kept(source)) == [f"{n}" for n in range(10)]
    work = units(source)

    def fail(*a: Any, **k: Any) -> Any:
        raise ConnectionError("no route")

    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(DataError, match="could not be streamed"):
        list(read(source, work[0]))


def test_the_python_installation() -> None:
    source = PythonRead(max_bytes=200_000)
    found = list(islice(read(source, units(source)[0]), 40))  # all of it takes some ten seconds
    assert len(found) > 5 and all(r.labels["locator"] for r in found if isinstance(r, Document))


def test_chat_from_a_zip_of_nothing_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(DataError, match="no file that 'chat' reads"):
        units(ChatRead(path=str(tmp_path)))
