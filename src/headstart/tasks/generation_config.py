"""Settings of conditional generation: a text from a text (data-to-text, summaries, conclusions). No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from headstart.core.bounds import COUNT, COUNT_FROM_0, refuse_outside
from headstart.tasks.config import OF_EVERY_TRAINING, Rates

BOUNDS = OF_EVERY_TRAINING | {
    **dict.fromkeys(("targets_per_source", "beams", "max_new_tokens"), COUNT),
    "no_repeat": COUNT_FROM_0,
}


@dataclass
class GenerationConfig(Rates):
    """Fine-tuning of a decoder on pairs of a source and its targets, and how it then writes. The defaults suit small networks and some thousand
    pairs."""

    learning_rate: float = 1e-3
    """Peak rate. Some 1e-5 to 1e-4 for networks over 100 M parameters."""
    learning_rates: tuple[float, ...] = ()
    """Rates to try; each start takes its best on the dev file with the first seed. Empty: `learning_rate` alone."""
    epochs: float = 5.0
    """Passes over the pairs. SPDF: 5 for data-to-text."""
    batch: int = 16
    """Pairs a step."""
    micro_batch: int | None = None
    """Pairs on the device at once; None: the whole batch."""
    weight_decay: float = 0.01
    """Of matrices."""
    beta2: float = 0.999
    """AdamW's second momentum."""
    clip_norm: float | None = 1.0
    """Global norm of the gradients."""
    warmup_share: float = 0.1
    """Share of the steps in which the rate rises; then a cosine to 0."""
    dropout: float = 0.0
    """Dropout inside the network."""
    sparse: bool = False
    """Keep the masks of a sparse model (masks.safetensors beside it): its zeros stay. Otherwise all weights learn, as in SPDF."""
    loss_on_source: bool = False
    """Also learn to write the source."""
    source_field: str = "source"
    """Field with the source. Records with the same one belong together: they are references of one."""
    target_field: str = "target"
    """Field with the target, or with a list of them."""
    context_field: str | None = None
    """Field with a text that follows the source, after a line feed, cut from the left so that all fits (an abstract after its question)."""
    source_form: Literal["text", "slots"] = "text"
    """slots: the source is a meaning representation as in E2E, name[X], eatType[Y], and is written "name: X; type: Y"; the slot error is measured."""
    targets_per_source: int | None = None
    """Train on the first targets of each source only."""
    max_length: int | None = None
    """Tokens of source and target together; None: what the network has positions for."""
    beams: int = 1
    """Beams of the outputs; 1 is greedy. SPDF: 10."""
    length_penalty: float = 1.0
    """The score of a beam is divided by its length to this power. SPDF: 0.8 to 0.9."""
    no_repeat: int = 0
    """No sequence of so many tokens comes twice in an output; 0: any may. SPDF: 4."""
    max_new_tokens: int = 128
    """Tokens of an output at most."""
    generate: bool = True
    """Also write outputs for the test file and score them; False: the loss alone."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 autocast on a GPU that has it, fp32 on a CPU."""
    device: str = "auto"
    """auto: a GPU if there is one."""


def check_generation(config: GenerationConfig) -> None:
    """Raises UsageError for the first number that no fine-tuning can have."""
    refuse_outside(config, BOUNDS)
