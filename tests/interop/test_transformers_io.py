"""Folders of transformers: what we write loads elsewhere with equal outputs, and what does not fit is refused with a sentence."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from headstart.core.errors import BadInput, UsageError
from headstart.engine.text_method import refuse_larger_tokenizer
from headstart.interop.transformers_io import load_encoder, save_model_folder

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "cat", "##s", "sat", "on", "mat", ",", "a", "dog"]
TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 20}


def word_piece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    return tokenizer


def tiny(kind: str) -> transformers.PreTrainedModel:
    torch.manual_seed(17)
    t = transformers
    small = {**TINY, "max_position_embeddings": 32}
    if kind == "electra":
        return t.ElectraForPreTraining(t.ElectraConfig(**small, embedding_size=8))
    if kind == "bert":
        return t.BertForMaskedLM(t.BertConfig(**small))
    if kind == "roberta":
        return t.RobertaForMaskedLM(t.RobertaConfig(**small, pad_token_id=0))
    if kind == "modernbert":
        return t.ModernBertForMaskedLM(t.ModernBertConfig(**small, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3))
    if kind == "gpt2":
        return t.GPT2LMHeadModel(t.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=20, n_positions=32, bos_token_id=2, eos_token_id=3))
    if kind == "llama":
        return t.LlamaForCausalLM(t.LlamaConfig(**small, num_key_value_heads=2, bos_token_id=2, eos_token_id=3, pad_token_id=0))
    config = t.T5Config(d_model=16, d_ff=32, d_kv=8, num_layers=2, num_heads=2, vocab_size=20, pad_token_id=0, decoder_start_token_id=0)
    return t.T5ForConditionalGeneration(config)


KINDS = {"electra": False, "bert": False, "roberta": False, "modernbert": False, "gpt2": True, "llama": True, "t5": False}


@pytest.mark.parametrize(("kind", "causal"), KINDS.items())
def test_a_saved_folder_loads_here_and_in_transformers_with_equal_outputs(kind: str, causal: bool, tmp_path: Path) -> None:
    model = tiny(kind).eval()
    save_model_folder(model, word_piece(), tmp_path / "m")
    encoder = load_encoder(tmp_path / "m")
    assert (encoder.causal, encoder.hidden_size, encoder.n_layers) == (causal, 16, 2)
    assert encoder.max_length == {"t5": None, "roberta": 31}.get(kind, 32)
    assert encoder.segments == (kind in ("electra", "bert", "roberta"))

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "m")
    ids = torch.tensor([tokenizer("the cats sat").input_ids, [*tokenizer("the dog on").input_ids, 0]])
    mask = torch.ones_like(ids)
    mask[1, -1] = 0
    theirs = transformers.AutoModel.from_pretrained(tmp_path / "m").eval()
    theirs = theirs.get_encoder() if kind == "t5" else theirs
    base = model.get_encoder() if kind == "t5" else model.base_model
    with torch.no_grad():
        mine = encoder.hidden_states({"input_ids": ids, "attention_mask": mask.bool()})
        real = mask.bool()[..., None]
        assert torch.allclose(mine * real, theirs(ids, attention_mask=mask).last_hidden_state * real, atol=1e-6)
        assert torch.allclose(mine * real, base(ids, attention_mask=mask).last_hidden_state * real, atol=1e-6)
        assert torch.allclose(encoder.hidden_states({"input_ids": ids[:1]}), mine[:1], atol=1e-6)


def test_segments_reach_the_networks_that_have_them(tmp_path: Path) -> None:
    for kind in ("electra", "gpt2"):
        save_model_folder(tiny(kind), word_piece(), tmp_path / kind)
        encoder = load_encoder(tmp_path / kind)
        ids = torch.tensor([[2, 5, 3, 6, 3]])
        with torch.no_grad():
            plain = encoder.hidden_states({"input_ids": ids})
            split = encoder.hidden_states({"input_ids": ids, "token_type_ids": torch.tensor([[0, 0, 0, 1, 1]])})
        assert torch.allclose(plain, split) == (kind == "gpt2")


def test_the_saved_tokenizer_adds_what_the_family_expects(tmp_path: Path) -> None:
    save_model_folder(tiny("electra"), word_piece(), tmp_path / "e")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "e")
    assert tokenizer("The cats").input_ids == [2, 5, 6, 7, 3]
    pair = tokenizer("the cat", "sat")
    assert pair.input_ids == [2, 5, 6, 3, 8, 3]
    assert pair.token_type_ids == [0, 0, 0, 0, 1, 1]
    assert tokenizer.mask_token_id == 4
    assert tokenizer.pad_token_id == 0
    assert tokenizer.model_max_length == 32
    assert tokenizer.decode(tokenizer("the cats sat").input_ids, skip_special_tokens=True) == "the cats sat"

    save_model_folder(tiny("gpt2"), word_piece(), tmp_path / "g")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "g")
    assert tokenizer("the cat").input_ids == [2, 5, 6]  # no end token: a causal model goes on from here
    assert "token_type_ids" not in tokenizer("the cat")


def test_a_template_of_the_tokenizers_own_is_kept(tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer.post_processor = processors.TemplateProcessing(single="[SEP] $A", special_tokens=[("[SEP]", 3)])
    save_model_folder(tiny("bert"), tokenizer, tmp_path / "m")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "m")("the").input_ids == [3, 5]


def test_saving_leaves_the_callers_tokenizer_and_other_files_alone(tmp_path: Path) -> None:
    tokenizer = word_piece()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "README.md").write_text("mine")
    save_model_folder(tiny("bert"), tokenizer, tmp_path / "m")
    assert tokenizer.post_processor is None
    written = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "m").iterdir()} == {"README.md", *written}
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_a_fresh_start_has_the_same_shapes_other_weights_and_its_own_seed(tmp_path: Path) -> None:
    save_model_folder(tiny("electra"), word_piece(), tmp_path / "m")
    trained = load_encoder(tmp_path / "m").module.state_dict()
    state = torch.get_rng_state()
    first, again, other = (load_encoder(tmp_path / "m", fresh=True, seed=seed).module.state_dict() for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    key = "encoder.layer.0.attention.self.query.weight"
    assert {name: value.shape for name, value in first.items()} == {name: value.shape for name, value in trained.items()}
    assert torch.equal(first[key], again[key])
    assert not torch.equal(first[key], other[key])
    assert not torch.equal(first[key], trained[key])


def test_dropout_is_set_everywhere(tmp_path: Path) -> None:
    for kind in ("electra", "gpt2", "modernbert"):
        save_model_folder(tiny(kind), word_piece(), tmp_path / kind)
        encoder = load_encoder(tmp_path / kind, dropout=0.25)
        rates = {module.p for module in encoder.module.modules() if isinstance(module, torch.nn.Dropout)}
        assert rates == {0.25}, kind
        assert not any(module.training for module in encoder.module.modules())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_model_folder(tiny("electra"), word_piece(), tmp_path / "m")
    return tmp_path / "m"


def edit_weights(folder: Path, edit) -> None:
    weights = load_file(folder / "model.safetensors")
    edit(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def test_missing_weights_are_never_filled_with_random_ones(folder: Path) -> None:
    edit_weights(folder, lambda weights: weights.pop("electra.encoder.layer.1.output.dense.weight"))
    with pytest.raises(BadInput, match=r"1 of the network's \d+ weights are not in the file.*layer\.1\.output\.dense\.weight"):
        load_encoder(folder)
    load_encoder(folder, fresh=True)  # a random start does not read them


def test_weights_under_other_names_are_refused(folder: Path) -> None:
    def rename(weights: dict) -> None:
        for name in list(weights):
            weights["my_model." + name] = weights.pop(name)

    edit_weights(folder, rename)
    with pytest.raises(BadInput, match="would start random"):
        load_encoder(folder)


def test_layers_left_over_in_the_file_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 1}))
    with pytest.raises(BadInput, match="no place in the network"):
        load_encoder(folder)


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "intermediate_size": 64}))
    with pytest.raises(BadInput, match="another shape"):
        load_encoder(folder)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "hologram"}'), "hologram"),
        (lambda folder: (folder / "config.json").write_text('{"model_type": "x", "auto_map": {"AutoModel": "evil.Model"}}'), "never run here"),
        (lambda folder: (folder / "model.safetensors").unlink(), "has no weights"),
        (lambda folder: (folder / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes()[:500]), "cannot be read"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b""), "cannot be read"),
        (lambda folder: [(folder / name).unlink() for name in ("tokenizer.json", "tokenizer_config.json")], "has no tokenizer"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "is no tokenizer"),
    ],
)
def test_a_spoilt_folder_is_refused_with_a_sentence(folder: Path, spoil, message: str) -> None:
    spoil(folder)
    with pytest.raises(BadInput, match=message) as caught:
        load_encoder(folder)
    assert str(folder) in str(caught.value)


def test_a_network_of_images_is_no_text_model_that_lacks_its_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "vit_mae", "patch_size": 4, "image_size": 16}')
    with pytest.raises(BadInput, match="holds a network that reads images") as caught:
        load_encoder(tmp_path)
    assert "tokenizer" not in str(caught.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no such folder"):
        load_encoder(tmp_path / "nowhere")


class Attack:
    def __reduce__(self):
        return (os.mkdir, (os.environ["ATTACK_TARGET"],))


def test_a_pickle_that_runs_code_is_refused_and_does_not_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTACK_TARGET", str(tmp_path / "owned"))
    (folder / "model.safetensors").unlink()
    for attack in (lambda path: torch.save({"a": Attack()}, path), lambda path: path.write_bytes(pickle.dumps(Attack(), protocol=2))):
        attack(folder / "pytorch_model.bin")
        with pytest.raises(BadInput, match="cannot be read"):
            load_encoder(folder)
    assert not (tmp_path / "owned").exists()


def test_plain_torch_weights_are_read_without_pickle(folder: Path) -> None:
    expected = load_encoder(folder).module.state_dict()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    assert all(torch.equal(value, expected[name]) for name, value in load_encoder(folder).module.state_dict().items())


def test_a_tokenizer_larger_than_the_network_is_refused(tmp_path: Path) -> None:
    tokenizer = word_piece()
    tokenizer.add_tokens([f"extra{i}" for i in range(10)])
    with pytest.raises(UsageError, match="The tokenizer has 24 entries, the network 20") as saved:
        save_model_folder(tiny("bert"), tokenizer, tmp_path / "m")
    save_model_folder(tiny("bert"), word_piece(), tmp_path / "m")
    tokenizer.save(str(tmp_path / "m" / "tokenizer.json"))
    with pytest.raises(BadInput) as loaded:
        load_encoder(tmp_path / "m")
    with pytest.raises(BadInput) as begun:
        refuse_larger_tokenizer(tmp_path / "m")
    assert loaded.value.reason == begun.value.reason == saved.value.what.replace("The tokenizer", "its tokenizer"), "one sentence wherever it is met"
    assert loaded.value.mend == begun.value.mend == saved.value.mend


def test_a_vocab_txt_folder_as_people_have_it(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    (folder / "tokenizer.json").unlink()
    (folder / "tokenizer_config.json").unlink()
    assert load_encoder(folder).tokenizer("The cats").input_ids == [2, 5, 6, 7, 3]
