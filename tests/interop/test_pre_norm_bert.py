"""Names of the official pre-norm BERT, both ways."""

from __future__ import annotations

import pytest
import torch

from headstart.backbones.text import build_masked_lm
from headstart.core.errors import BadInput
from headstart.interop.pre_norm_bert import from_official, to_official


def test_names_go_both_ways_and_positions_are_counted_from_zero() -> None:
    torch.manual_seed(0)
    ids = {"pad": 0, "cls": 2, "sep": 3, "mask": 4}
    sizes = {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "intermediate_size": 12}
    model = build_masked_lm("roberta-prelayernorm", vocab_size=19, max_length=6, dropout=0.0, special_ids=ids, **sizes)
    own = dict(model.state_dict())
    official = to_official(own)
    layer = {"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense", "intermediate.dense_act", "output.dense"}
    layer |= {"PreAttentionLayerNorm", "PostAttentionLayerNorm"}
    expected = {f"bert.encoder.layer.{i}.{part}.{kind}" for i in range(2) for part in layer for kind in ("weight", "bias")}
    expected |= {f"bert.embeddings.{kind}_embeddings.weight" for kind in ("word", "position", "token_type")}
    expected |= {f"{norm}.{kind}" for norm in ("bert.embeddings.LayerNorm", "bert.encoder.FinalLayerNorm") for kind in ("weight", "bias")}
    expected |= {f"cls.predictions.transform.{part}.{kind}" for part in ("dense_act", "LayerNorm") for kind in ("weight", "bias")}
    expected |= {"cls.predictions.bias", "cls.predictions.decoder.weight"}
    assert set(official) == expected
    assert official["bert.embeddings.position_embeddings.weight"].shape == (6, 8)
    first = official["bert.embeddings.position_embeddings.weight"][0]
    assert torch.equal(first, own["roberta_prelayernorm.embeddings.position_embeddings.weight"][1])

    again = type(model)(model.config)
    with_pooler = official | {"bert.pooler.dense_act.weight": torch.zeros(8, 8)}
    again.load_state_dict(from_official(with_pooler), strict=True)
    tokens = torch.tensor([[2, 7, 9, 3]])
    assert torch.equal(again.eval()(input_ids=tokens).logits, model.eval()(input_ids=tokens).logits)


def test_another_network_is_refused_with_the_tensor() -> None:
    with pytest.raises(BadInput, match=r"bert\.encoder\.layer\.0\.output\.LayerNorm\.weight"):
        from_official({"bert.encoder.layer.0.output.LayerNorm.weight": torch.zeros(3)})
