"""`import`: official checkpoints become folders of transformers that compute the same; what is not known is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, ElectraForMaskedLM, ElectraForPreTraining

import headstart
from headstart.backbones.vit import ViT, ViTConfig
from headstart.cli.main import main
from headstart.core.errors import BadInput, UsageError
from headstart.engine.export_hashes import verify_export
from headstart.interop.masks import read_masks
from headstart.interop.vit import load_vit
from headstart.methods.electra.config import ElectraConfig
from headstart.methods.electra.network import config_of_folder, load
from headstart.verbs.import_checkpoint import import_checkpoint
from tests.fuzz.fuzzing import budget, spoilt, tried
from tests.fuzz.mutations import damaged
from tests.official import VOCABULARY, as_cerebras, electra, gpt2, pre_norm_bert, vision, write_bundle, write_vocabulary
from tests.running import quiet

IDS = torch.tensor([[2, 7, 9, 12, 3]])


def assert_same(found: Any, wanted: Any) -> None:
    with torch.no_grad():
        assert torch.equal(found.eval()(input_ids=IDS).logits, wanted.eval()(input_ids=IDS).logits)


@pytest.mark.parametrize("form", ["files of TensorFlow", "npz"])
def test_electra_becomes_two_networks_that_continue(form: str, tmp_path: Path) -> None:
    discriminator, generator, arrays = electra()
    write_vocabulary(tmp_path / "there")
    if form == "npz":
        np.savez(tmp_path / "there" / "electra.npz", **arrays)  # type: ignore[arg-type]
    else:
        write_bundle(tmp_path / "there" / "model.ckpt-1000", arrays)
    said: list[str] = []
    found = import_checkpoint(tmp_path / "there", tmp_path / "out", heads=3, say=said.append)
    assert "an ELECTRA of google-research (TensorFlow 1)" in said[0]
    assert found.model == tmp_path / "out" / "discriminator"
    assert_same(ElectraForPreTraining.from_pretrained(found.model), discriminator)
    assert_same(ElectraForMaskedLM.from_pretrained(tmp_path / "out" / "generator"), generator)
    tokenizer = AutoTokenizer.from_pretrained(found.model)
    assert tokenizer("The boat").input_ids == [2, VOCABULARY.index("the"), VOCABULARY.index("boat"), 3]
    config = config_of_folder(tmp_path / "out", ElectraConfig(), len(VOCABULARY))  # what --init does
    again, main_network = load(tmp_path / "out", config, len(VOCABULARY), {"pad": 0, "cls": 2, "sep": 3, "mask": 4})
    assert_same(main_network, discriminator)
    assert_same(again, generator)
    verify_export(found.folder)
    info = json.loads((tmp_path / "out" / "import.json").read_text())
    assert info["format"] == "electra-tf1"
    assert info["tensors"] == len([name for name in arrays if "adam" not in name and name != "global_step"])
    assert str(tmp_path) not in json.dumps(info) + (tmp_path / "out" / "README.md").read_text(), "the folder is made to be published"


def test_electra_of_official_sizes_needs_no_number_of_heads_and_others_do(tmp_path: Path) -> None:
    _, _, arrays = electra(generator=False)
    write_vocabulary(tmp_path)
    np.savez(tmp_path / "electra.npz", **arrays)  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"width of 12, which is no number of heads of 64\.\nGive .* \(--heads\)"):
        import_checkpoint(tmp_path / "electra.npz", tmp_path / "out", say=quiet)
    with pytest.raises(BadInput, match="which 5 heads do not divide"):
        import_checkpoint(tmp_path / "electra.npz", tmp_path / "out", heads=5, say=quiet)
    found = import_checkpoint(tmp_path / "electra.npz", tmp_path / "out", heads=3, say=quiet)
    assert not (found.folder / "generator").exists()


def test_an_encoder_without_its_head_is_one(tmp_path: Path) -> None:
    discriminator, _, arrays = electra(generator=False)
    write_vocabulary(tmp_path)
    np.savez(tmp_path / "x.npz", **{name: value for name, value in arrays.items() if name.startswith("electra/")})  # type: ignore[arg-type]
    found = import_checkpoint(tmp_path / "x.npz", tmp_path / "out", heads=3, say=quiet)
    with torch.no_grad():
        states = AutoModel.from_pretrained(found.model)(IDS).last_hidden_state
        assert torch.equal(states, discriminator.electra(IDS).last_hidden_state)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"electra/encoder/layer_0/attention/self/key/kernel": None}, r"lacks 1 weights, for example electra\..*\.0\.attention\.self\.key\.weight"),
        ({"electra/encoder/layer_2/output/dense/kernel": np.zeros((20, 12), np.float32)}, "lacks 15 weights"),
        ({"electra/pooler/dense/kernel": np.zeros((12, 12), np.float32)}, "has no place for, for example electra.pooler.dense.weight"),
        ({"electra/encoder/layer_0/output/dense/kernel": np.zeros((12, 20), np.float32)}, r"has the shape \[20, 12\], the network's \[12, 20\]"),
        ({"electra/encoder/layer_0/output/dense/bias": np.full(12, np.nan, np.float32)}, "holds numbers that are not finite"),
        ({"electra/encoder/layer_9999/output/dense/bias": np.zeros(12, np.float32)}, "has 10,000 layers"),
        ({"task/classifier/kernel": np.zeros((12, 2), np.float32)}, "a variable task/classifier/kernel, which no ELECTRA network has"),
        ({"electra/embeddings/position_embeddings": np.zeros(3, np.float32)}, "has no matrix embeddings/position_embeddings"),
    ],
    ids=["missing", "half a layer", "left over", "another shape", "not finite", "many layers", "of a task", "no matrix"],
)
def test_what_does_not_fit_is_named_and_nothing_is_left(change: dict[str, Any], what: str, tmp_path: Path) -> None:
    _, _, arrays = electra(generator=False)
    changed = {name: value for name, value in (arrays | change).items() if value is not None}
    write_vocabulary(tmp_path / "there")
    np.savez(tmp_path / "there" / "x.npz", **changed)
    with pytest.raises(BadInput, match=what):
        import_checkpoint(tmp_path / "there", tmp_path / "out", heads=3, say=quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_a_gpt_of_cerebras_with_its_masks(store: Path, tmp_path: Path) -> None:
    model = gpt2()
    state = as_cerebras(model)
    name = "transformer_decoder.layers.0.ffn.ffn.0.linear_layer.weight"
    pruned = torch.rand(state[name].shape) < 0.75
    state[name][pruned] = float("nan")
    torch.save({"model": state, "optimizer": {"step": 3}}, tmp_path / "checkpoint_9.mdl")
    with pytest.raises(UsageError, match="holds no tokenizer"):
        import_checkpoint(tmp_path / "checkpoint_9.mdl", tmp_path / "out", heads=2, say=quiet)
    given = {"tokenizer": store / "tokenizer.json", "say": quiet}
    with pytest.raises(UsageError, match="does not say how many heads its attention has"):
        import_checkpoint(tmp_path / "checkpoint_9.mdl", tmp_path / "out", **given)
    with pytest.raises(BadInput, match="which 3 heads do not divide"):
        import_checkpoint(tmp_path / "checkpoint_9.mdl", tmp_path / "out", heads=3, **given)
    said: list[str] = []
    found = import_checkpoint(tmp_path / "checkpoint_9.mdl", tmp_path / "out", heads=2, **given | {"say": said.append})
    dict(model.named_parameters())["transformer.h.0.mlp.c_fc.weight"].data[pruned.T] = 0.0
    assert_same(AutoModelForCausalLM.from_pretrained(found.folder), model)
    assert torch.equal(read_masks(found.folder)["transformer.h.0.mlp.c_fc.weight"], ~pruned.T)
    assert any(f"Sparse: {float(pruned.float().mean()):.1%} of the weights in 1 matrices" in line for line in said)


def test_a_tokenizer_of_gpt2_from_its_two_files(tmp_path: Path) -> None:
    pieces = {letter: number for number, letter in enumerate("abcdefgh")} | {"ab": 8, "Ġ": 9, "<|endoftext|>": 10}
    (tmp_path / "vocab.json").write_text(json.dumps(pieces))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    torch.save(as_cerebras(gpt2()), tmp_path / "x.pt")
    found = import_checkpoint(tmp_path / "x.pt", tmp_path / "out", heads=2, say=quiet)
    tokenizer = AutoTokenizer.from_pretrained(found.folder)
    assert tokenizer("abc").input_ids == [8, 2], "GPT-2 puts nothing before a text"
    assert tokenizer.eos_token == "<|endoftext|>"
    assert AutoModelForCausalLM.from_pretrained(found.folder).generation_config.eos_token_id == 10, "of GPT-2 it would be 50256"
    again = import_checkpoint(tmp_path / "x.pt", tmp_path / "again", heads=2, tokenizer=found.folder, say=quiet)  # a folder of transformers
    assert AutoTokenizer.from_pretrained(again.folder)("abc").input_ids == [8, 2]
    assert str(tmp_path) not in (again.folder / "import.json").read_text()
    (tmp_path / "merges.txt").write_text("a b c\n")
    with pytest.raises(BadInput, match="is no vocabulary of GPT-2"):
        import_checkpoint(tmp_path / "x.pt", tmp_path / "other", heads=2, say=quiet)


def test_a_pre_norm_bert_with_what_its_config_says(tmp_path: Path) -> None:
    model, official = pre_norm_bert()
    write_vocabulary(tmp_path / "there")
    (tmp_path / "there" / "config.json").write_text(json.dumps({"num_attention_heads": 2, "model_type": "bert-mlm"}))
    torch.save({f"module.{name}": value for name, value in official.items()}, tmp_path / "there" / "pytorch_model.bin")
    found = import_checkpoint(tmp_path / "there", tmp_path / "out", say=quiet)
    assert_same(AutoModelForMaskedLM.from_pretrained(found.folder), model)
    (tmp_path / "there" / "config.json").unlink()
    with pytest.raises(UsageError, match="does not say how many heads"):
        import_checkpoint(tmp_path / "there", tmp_path / "other", say=quiet)
    save_file({"bert.encoder.layer.0.PreAttentionLayerNorm.weight": torch.zeros(2)}, tmp_path / "there" / "x.safetensors")
    with pytest.raises(BadInput, match=r"has nothing that becomes '.*position_embeddings\.weight'"):
        import_checkpoint(tmp_path / "there" / "x.safetensors", tmp_path / "other", heads=2, say=quiet)


SHAPE = ViTConfig(image_size=(16, 16), patch_size=4, channels=3, hidden_size=12, num_layers=2, num_heads=3, class_token=True, positions="learned")


def test_a_vision_transformer_is_the_same_in_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = ViT(SHAPE)
    torch.save({"model": vision(network, ("decoder_embed.weight", (8, 12)), ("mask_token", (1, 1, 8)))}, tmp_path / "mae.pth")
    with pytest.raises(BadInput, match="does not say how many heads its width of 12"):
        import_checkpoint(tmp_path / "mae.pth", tmp_path / "out", say=quiet)
    said: list[str] = []
    found = import_checkpoint(tmp_path / "mae.pth", tmp_path / "out", heads=3, say=said.append)
    image = torch.rand(2, 3, 16, 16)
    with torch.no_grad():
        theirs, ours = AutoModel.from_pretrained(found.folder)(pixel_values=image).last_hidden_state, load_vit(found.folder)[0].eval()(image)
        torch.testing.assert_close(theirs, network.eval()(image), rtol=0, atol=1e-5)
        assert torch.equal(ours, network(image))
    assert set(load_file(found.folder / "method.safetensors")) == {"decoder_embed.weight", "mask_token"}, "a decoder goes on with it"
    assert any("does not say how its images were normalised" in line for line in said)


def test_a_vision_transformer_for_pictures_without_end_is_not_run(tmp_path: Path) -> None:
    state = vision(ViT(SHAPE.at(patch_size=1, image_size=(4, 4))))
    torch.save(state | {"pos_embed": torch.zeros(1, 1 + 300**2, 12)}, tmp_path / "x.pth")
    with pytest.raises(BadInput, match="is made for images of 300 x 300 pixels in patches of 1"):
        import_checkpoint(tmp_path / "x.pth", tmp_path / "out", heads=3, say=quiet)


def test_short_rows_and_other_precisions_are_taken(tmp_path: Path) -> None:
    model, _, arrays = electra(generator=False)
    positions = arrays["electra/embeddings/position_embeddings"][:5]
    names = [name for name in arrays if "adam" not in name and name != "global_step"]
    tensors = {name: torch.from_numpy(arrays[name]).bfloat16() for name in names}
    tensors["electra/embeddings/position_embeddings"] = torch.from_numpy(positions).bfloat16()
    torch.save(tensors, tmp_path / "x.pt")
    write_vocabulary(tmp_path)
    found = import_checkpoint(tmp_path / "x.pt", tmp_path / "out", heads=3, say=quiet)
    again = ElectraForPreTraining.from_pretrained(found.model)
    assert again.config.max_position_embeddings == 5
    assert torch.equal(again.electra.embeddings.word_embeddings.weight, model.electra.embeddings.word_embeddings.weight.bfloat16().float())


def test_a_folder_of_timm_says_how_its_images_were_normalised(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    save_file(vision(ViT(SHAPE), ("head.weight", (5, 12)), ("head.bias", (5,))), tmp_path / "there" / "model.safetensors")
    stated = {"architecture": "vit_x", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.2, 0.2, 0.2]}}
    (tmp_path / "there" / "config.json").write_text(json.dumps(stated))
    found = import_checkpoint(tmp_path / "there", tmp_path / "out", heads=3, say=quiet)
    assert json.loads((found.folder / "preprocessor_config.json").read_text())["image_std"] == [0.2, 0.2, 0.2]
    assert set(load_file(found.folder / "method.safetensors")) == {"head.weight", "head.bias"}


def test_what_transformers_has_no_network_for_is_sent_to_its_method(tmp_path: Path) -> None:
    plain = vision(ViT(SHAPE))
    without = {name: value for name, value in plain.items() if not name.startswith(("norm.", "cls_token"))}
    files = {
        "croco": ({"enc_blocks.0.attn.qkv.weight": torch.zeros(3, 3)}, r"checkpoint of CroCo, .*\n.*headstart pretrain croco --init"),
        "groups": ({"patch_embed.0.proj.weight": torch.zeros(3, 2, 2, 2)}, r"with groups of bands, .*\n.*pretrain satmaepp --init"),
        "no class token": (without | {"pos_embed": plain["pos_embed"][:, 1:]}, "transformers has no class for"),
    }
    for name, (state, what) in files.items():
        torch.save(state, tmp_path / f"{name}.pth")
        with pytest.raises(UsageError, match=what):
            import_checkpoint(tmp_path / f"{name}.pth", tmp_path / "out", heads=3, say=quiet)
    torch.save({name: value for name, value in plain.items() if not name.startswith("norm.")}, tmp_path / "finetuned.pth")
    with pytest.raises(BadInput, match=r"lacks weights of a whole encoder\. The file has no norm\.bias|norm\.weight"):
        import_checkpoint(tmp_path / "finetuned.pth", tmp_path / "out", heads=3, say=quiet)


def test_what_needs_no_import_is_told(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"is a run of headstart\.\nGive: headstart export"):
        import_checkpoint(trained, tmp_path / "out")
    with pytest.raises(BadInput, match="is of no format that is known; it holds "):
        import_checkpoint(trained / "export" / "model.safetensors", tmp_path / "out")
    with pytest.raises(UsageError, match="is a folder of transformers already"):
        import_checkpoint(trained / "export", tmp_path / "out")


def test_names_that_are_not_known_are_listed(tmp_path: Path) -> None:
    np.savez(tmp_path / "bert.npz", **{f"bert/encoder/layer_{number:02d}/x": np.zeros(2) for number in range(12)})  # type: ignore[arg-type]
    with pytest.raises(BadInput, match=r"it holds bert/encoder/layer_00/x, .*layer_07/x and 4 more\.\nRead are: Cerebras"):
        import_checkpoint(tmp_path / "bert.npz", tmp_path / "out")
    write_vocabulary(tmp_path)
    with pytest.raises(BadInput, match="no variable electra/embeddings/word_embeddings"):
        import_checkpoint(tmp_path / "bert.npz", tmp_path / "out", format="electra-tf1", say=quiet)


def test_of_several_checkpoints_the_newest_is_taken_where_tensorflow_says_which(tmp_path: Path) -> None:
    _, _, arrays = electra(generator=False)
    write_vocabulary(tmp_path)
    for step in (10, 20):
        write_bundle(tmp_path / f"model.ckpt-{step}", arrays)
    with pytest.raises(BadInput, match=r"holds 2 checkpoints \(model\.ckpt-10, model\.ckpt-20\)"):
        import_checkpoint(tmp_path, tmp_path / "out", heads=3)
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: "/theirs/models/model.ckpt-20"\nall_model_checkpoint_paths: "model.ckpt-10"\n')
    found = import_checkpoint(tmp_path, tmp_path / "out", heads=3, say=quiet)
    assert "model.ckpt-20.index" in found.info["files"]


def test_a_vocabulary_with_case_keeps_it(tmp_path: Path) -> None:
    _, _, arrays = electra(generator=False)
    for name in ("word_embeddings",):
        table = arrays[f"electra/embeddings/{name}"]
        arrays[f"electra/embeddings/{name}"] = np.concatenate([table, table[:2]])
    np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    write_vocabulary(tmp_path, "Boat", "née")
    said: list[str] = []
    found = import_checkpoint(tmp_path / "x.npz", tmp_path / "out", heads=3, say=said.append)
    assert "Tokenizer: vocab.txt (with case, with accents, as its words are)." in said
    tokenizer = AutoTokenizer.from_pretrained(found.model)
    assert tokenizer("Boat boat").input_ids[1:-1] == [len(VOCABULARY), VOCABULARY.index("boat")]
    (tmp_path / "vocab.txt").write_text("[UNK]\na\n")
    with pytest.raises(BadInput, match=r"lacks \[PAD\]"):
        import_checkpoint(tmp_path / "x.npz", tmp_path / "other", heads=3, say=quiet)


@pytest.mark.parametrize("form", ["npz", "pt"])
def test_damaged_files_end_in_a_message(form: str, tmp_path: Path) -> None:
    file = tmp_path / f"x.{form}"
    if form == "npz":
        write_vocabulary(tmp_path)
        np.savez(file, **electra(generator=False)[2])  # type: ignore[arg-type]
    else:
        Tokenizer.from_str(json.dumps({"version": "1.0", "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}})).save(
            str(tmp_path / "tokenizer.json")
        )
        torch.save(as_cerebras(gpt2()), file)

    @budget(12)
    @given(damaged(file.read_bytes()))
    def fuzz(data: bytes) -> None:
        with spoilt(file, data):
            tried(lambda: import_checkpoint(file, tmp_path / "out" / str(len(list((tmp_path / "out").iterdir()))), heads=2, say=quiet))

    (tmp_path / "out").mkdir()
    fuzz()


def test_an_array_that_lies_about_its_size(tmp_path: Path) -> None:
    import io
    import zipfile

    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("electra/embeddings/word_embeddings.npy", head.getvalue())
    write_vocabulary(tmp_path)
    with pytest.raises(BadInput, match="is no array that is read"):
        import_checkpoint(tmp_path / "x.npz", tmp_path / "out", heads=2, say=quiet)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("electra/embeddings/word_embeddings.npy", bytes(300 * 2**20))
    with pytest.raises(BadInput, match="describes arrays of 300 MiB"):
        import_checkpoint(tmp_path / "x.npz", tmp_path / "out", heads=2, say=quiet)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_vocabulary(tmp_path)
    np.savez(tmp_path / "x.npz", **electra(generator=False)[2])  # type: ignore[arg-type]
    assert main(["import", str(tmp_path / "x.npz"), "--out", str(tmp_path / "out"), "--heads", "3", "--json"]) == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert (said["format"], said["model"]) == ("electra-tf1", str(tmp_path / "out" / "discriminator"))
    assert f"headstart pretrain electra --init {tmp_path / 'out'}" in printed.err
    assert main(["import", str(tmp_path / "x.npz"), "--out", str(tmp_path / "out")]) == 2, "something lies there"
    assert main(["import", str(tmp_path / "nothing"), "--out", str(tmp_path / "new")]) == 3
    with pytest.raises(UsageError, match="whose activation is known"):
        headstart.import_checkpoint(tmp_path / "x.npz", tmp_path / "new", heads=3, activation="relu")
