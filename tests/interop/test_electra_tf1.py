"""Names of TensorFlow 1 ELECTRA checkpoints: what is refused. The mapping itself is check 14 of tests/faithfulness/test_electra_networks.py."""

from __future__ import annotations

import numpy as np
import pytest

from headstart.core.errors import BadInput
from headstart.interop.electra_tf1 import from_tf1

WORDS = {"electra/embeddings/word_embeddings": np.zeros((7, 4), np.float32)}


def test_a_checkpoint_of_another_model_is_refused() -> None:
    with pytest.raises(BadInput, match="no variable electra/embeddings/word_embeddings"):
        from_tf1({"bert/embeddings/word_embeddings": np.zeros((7, 4))})


@pytest.mark.parametrize(
    "name",
    ["cls/predictions/output_bias", "electra/pooler/dense/weights", "discriminator_predictions/extra/kernel", "generator_predictions/dense/alpha"],
)
def test_unknown_variables_are_named(name: str) -> None:
    with pytest.raises(BadInput, match=name):
        from_tf1(WORDS | {name: np.zeros(3)})


def test_a_checkpoint_without_generator_gives_a_discriminator() -> None:
    discriminator, generator = from_tf1(WORDS)
    assert list(discriminator) == ["electra.embeddings.word_embeddings.weight"]
    assert generator == {}
