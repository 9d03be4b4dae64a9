import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import foretell
from foretell.data.tokenizer import Tokenizer, train_tokenizer
from foretell.errors import CheckpointError, ConversationError, GenerationError, TrainingError
from foretell.loading import find_checkpoint
from foretell.model.multimodal import Multimodal
from foretell.recipe import ModelConfig, TokenizerConfig, VisionConfig
from foretell.train.checkpoint import save_checkpoint


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run directory with a finished checkpoint of a tiny random model."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    tokenizer = train_tokenizer(iter(["the cat sat on the mat " * 30]), TokenizerConfig(vocab_size=320), grid=1)
    tokenizer.save(folder / "tokenizer")
    tower = VisionConfig(tile=32, width=64, depth=1)
    config = ModelConfig(
        vocab_size=tokenizer.vocab_size,
        image_token=tokenizer.special("<image>"),
        width=64,
        depth=2,
        max_length=128,
        zero_init_outputs=False,
        vision=tower,
    )
    files = {name: folder / "tokenizer" / name for name in ("tokenizer.json", "tokenizer_config.json")}
    model = Multimodal(config, generator=torch.Generator().manual_seed(3))
    save_checkpoint(folder / "pretrain" / "checkpoint", model, None, files)
    return folder


def test_a_run_and_its_checkpoint_load_as_the_same_model(run):
    model = foretell.load(run)
    again = foretell.load(str(run / "pretrain" / "checkpoint"), device="cpu")
    assert model.path == again.path
    assert model.complete("the cat", seed=1).token_ids == again.complete("the cat", seed=1).token_ids


@pytest.mark.parametrize("weights", ["int8", "int4"])
def test_weights_in_few_bits_load_and_answer(run, weights):
    model = foretell.load(run, weights=weights)
    assert model.generator.model.compute_dtype is torch.bfloat16
    assert model.complete("the cat", seed=1, max_tokens=4).token_ids
    with pytest.raises(GenerationError, match="multiply in bfloat16 on a CPU"):
        foretell.load(run, weights=weights, dtype="float32")
    with pytest.raises(GenerationError, match="allowed are full, int8, int4"):
        foretell.load(run, weights="int3")
    with pytest.raises(GenerationError, match="is an endpoint, which holds its weights in its own way"):
        foretell.load("http://127.0.0.1:1/v1", weights=weights)


def test_chat_reads_images_in_every_python_form(run, tmp_path):
    model = foretell.load(run)
    image = Image.new("RGB", (20, 30), "red")
    image.save(tmp_path / "red.png")
    replies = [
        model.chat([{"role": "user", "content": [form, "What is it?"]}], max_tokens=8, seed=2, stop="zz")
        for form in (image, tmp_path / "red.png", (tmp_path / "red.png").read_bytes())
    ]
    assert len({r.token_ids for r in replies}) == 1
    assert replies[0].usage is not None and replies[0].usage.image_tokens == 4
    assert replies[0].finish_reason in ("stop", "length")
    with pytest.raises(ConversationError, match="list of messages"):
        model.chat("hello")


def test_unknown_sampling_is_told_with_what_is_allowed(run):
    model = foretell.load(run)
    with pytest.raises(GenerationError, match="top_q; allowed are max_tokens"):
        model.complete("the", top_q=1)
    with pytest.raises(GenerationError, match="temperature is -1"):
        model.complete("the", temperature=-1)


def test_what_cannot_be_loaded_says_why(tmp_path, run):
    unfinished = tmp_path / "unfinished"
    (unfinished / "pretrain" / "checkpoints" / "step-000020").mkdir(parents=True)
    llama = tmp_path / "llama"
    llama.mkdir()
    (llama / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "model.bin").touch()
    cases = [
        ("https:///v1", GenerationError, "no base URL"),
        ("models/tiny.gguf", CheckpointError, "no file or folder"),
        ("someone/some-model", CheckpointError, "no folder someone/some-model here.*HF_HUB_OFFLINE"),
        (tmp_path / "none", CheckpointError, "no folder"),
        (tmp_path / "model.bin", CheckpointError, "pickle"),
        (tmp_path, CheckpointError, "holds no model"),
        (unfinished, CheckpointError, "not finished.*step-000020"),
        (llama, CheckpointError, "llama"),
    ]
    for ref, error, message in cases:
        with pytest.raises(error, match=message):
            foretell.load(ref)
    for device in ("bogus", "cuda:99"):
        with pytest.raises(TrainingError, match=rf"set to {device}, but this torch .* finds only: .*cpu"):
            foretell.load(run, device=device)
    assert find_checkpoint(run) == run / "pretrain" / "checkpoint"


def test_a_tokenizer_of_another_run_is_refused(tmp_path, run):
    config = ModelConfig(vocab_size=640, width=64, depth=1)
    source = run / "pretrain" / "checkpoint" / "tokenizer.json"
    save_checkpoint(tmp_path / "mixed", Multimodal(config), None, {"tokenizer.json": source})
    assert Tokenizer.load(tmp_path / "mixed").vocab_size == 320
    with pytest.raises(CheckpointError, match="320 ids, but the model 640"):
        foretell.load(tmp_path / "mixed")


def test_without_torch_the_error_names_the_extra(run):
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "import foretell\n"
        f"try: foretell.load({str(run)!r})\n"
        "except foretell.errors.MissingExtraError as error: print(error)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "foretell[torch]" in out.stdout, out.stderr
