"""The packaged model knows its languages, says nothing of others, and learns more from texts of one's own."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foretell.data.curate.language import LanguageModel, LanguageStep, _groups, fit_languages
from foretell.data.curate.language_train import main
from foretell.data.curate.steps import Removed
from foretell.data.document import Document, Segment
from foretell.errors import DataError

SAMPLES = {
    "en": "The old man walked slowly to the harbour, where his boat had been lying since the beginning of the winter.",
    "es": "El viejo caminó despacio hacia el puerto, donde su barca estaba amarrada desde el principio del invierno.",
    "pl": "Starzec szedł powoli do portu, gdzie jego łódź leżała od samego początku zimy i nikt jej nie używał.",
    "de": "Der alte Mann hat jeden Tag drei Eier gegessen und verkauft die anderen für zwei Dollar auf dem Markt.",
    "fr": "Le vieil homme mange trois œufs chaque jour et vend les autres au marché pour deux dollars la pièce.",
    "ru": "Старик каждый день съедает три яйца, а остальные продаёт на рынке по два доллара за штуку.",
    "ja": "おじいさんは毎日三つの卵を食べて、残りを市場で一個二ドルで売ります。いくらもらえますか。",
    "zh": "老人每天吃三个鸡蛋，其余的在市场上以每个两美元的价格出售。他每天能赚多少钱？",
    "th": "ชายชรากินไข่วันละสามฟองและขายที่เหลือที่ตลาดในราคาฟองละสองดอลลาร์ เขาได้เงินวันละเท่าไร",
}
OTHER = {
    "Greek": "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια και τα δικαιώματα.",
    "Swedish": "Alla människor är födda fria och lika i värde och rättigheter. De är utrustade med förnuft.",
    "numbers": "12 34 56 78 90 " * 20,
    "nothing": "",
}


def document(text: str, language: str = "und") -> Document:
    return Document("a", (Segment(text),), "s", "MIT", language)


@pytest.mark.parametrize("language", SAMPLES)
def test_a_sentence_is_enough(language: str) -> None:
    found = LanguageStep()(document(SAMPLES[language]))
    assert isinstance(found, Document)
    assert found.language == language


@pytest.mark.parametrize("name", OTHER)
def test_nothing_is_said_of_what_is_not_known(name: str) -> None:
    assert LanguageModel.load().identify(OTHER[name]) == ("und", 0.0)


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_letters_are_read_as_all_others_are(text: str) -> None:
    assert _groups(text).tolist() == _groups(f"{text}…").tolist()  # a sign at the end says nothing


def test_what_is_not_to_be_kept_goes_and_says_why() -> None:
    step = LanguageStep(keep=("en",)).build()
    assert isinstance(step(document(SAMPLES["en"])), Document)
    gone = step(document(SAMPLES["pl"]))
    assert isinstance(gone, Removed)
    assert gone.reason == "language.other"
    assert gone.detail.startswith("pl ")
    assert isinstance(step(document(OTHER["Greek"])), Document)
    assert step(document(OTHER["Greek"], "el")) == Removed("a", "language.other", "el 0.00")
    assert LanguageStep(keep=("en",), unknown="remove").build()(document("")) == Removed("a", "language.unknown")


def test_a_wrong_declaration_is_mended_and_remembered_and_a_trusted_one_stands() -> None:
    found = LanguageStep()(document(SAMPLES["es"], "en"))
    assert isinstance(found, Document)
    assert (found.language, found.labels) == ("es", {"language.declared": "en"})
    assert LanguageStep(trust=True)(document(SAMPLES["es"], "en")) == document(SAMPLES["es"], "en")
    assert LanguageStep()(document(SAMPLES["en"], "en-GB")) == document(SAMPLES["en"], "en-GB")


def test_training_on_texts_of_ones_own(tmp_path: Path) -> None:
    words = {"aa": "bado kemu sila roto ", "bb": "xyrq wvet zupl qoxi ", "cc": "mnaf tulg hirp josk "}
    for name, text in words.items():
        (tmp_path / f"{name}.txt").write_text(text * 2000)
    arguments = [f"{name}={tmp_path / name}.txt" for name in words]
    assert main([*arguments, "--out", str(tmp_path / "own.npz")]) == 0
    step = LanguageStep(model=tmp_path / "own.npz").build()
    for name, text in words.items():
        found = step(document(text * 10))
        assert isinstance(found, Document)
        assert found.language == name


def test_clear_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one language alone"):
        fit_languages([("en", "word " * 10_000)])
    with pytest.raises(DataError, match="Too little text of pl"):
        fit_languages([("en", "word " * 10_000), ("pl", "mało")])
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 no model")
    with pytest.raises(DataError, match="cannot be read as a language model"):
        LanguageStep(model=tmp_path / "bad.npz").build()
    assert main(["en", "--out", str(tmp_path / "x")]) == 2


@pytest.mark.realdata
def test_documents_held_out_are_known(real_data: Path) -> None:
    import pyarrow.parquet as pq

    model, right, count = LanguageModel.load(), 0, 0
    for name in ("textbooks-en", "textbooks-es", "textbooks-pl", "docs-en"):
        for row in pq.read_table(real_data / "corpus" / f"{name}.parquet", columns=["texts", "split"]).to_pylist():
            if row["split"] == "heldout":
                text = "\n".join(text for text in row["texts"] if text)
                right += model.identify(text)[0] == name[-2:]
                count += 1
    assert right >= 0.98 * count > 30
