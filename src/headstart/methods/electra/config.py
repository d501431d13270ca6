"""Settings and presets of ELECTRA: the paper's table, the released code's switches, and what a small budget needs."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Literal

from headstart import catalog
from headstart.core.bounds import ABOVE_0, COUNT, COUNT_FROM_0, FROM_0, MOST, Bounds, refuse_outside
from headstart.core.errors import UsageError
from headstart.data.text.config import TextConfig
from headstart.engine.config import Preset, Settings

logger = logging.getLogger(__name__)

Arm = Literal["electra", "electra_15", "mlm", "replace_mlm", "all_tokens_mlm"]

LONGEST_START = 0.45
"""The share of a run that the causal and generator-only phases may take together: a short run shortens them."""

BOUNDS = {
    "mask_ratio": Bounds(0, 1, "Give a share between 0 and 1; the paper: 0.15.", above=True, below=True),
    "temperature": ABOVE_0,
    **dict.fromkeys(("gen_weight", "disc_weight", "main_weight", "plateau_margin"), FROM_0),
    **dict.fromkeys(("causal_start", "generator_start", "example_seed"), COUNT_FROM_0),
    "sequence_length": Bounds(5, MOST, "ELECTRA's examples need at least 5 tokens."),
}
OF_NETWORK = {
    **dict.fromkeys(("num_heads", "intermediate_size", "embedding_size", "max_positions"), COUNT),
    **dict.fromkeys(("generator_hidden_size", "generator_layers"), ABOVE_0),
}


@dataclass
class ElectraConfig:
    """Networks, masking, loss and phases."""

    architecture: Literal["electra", "modernbert"] = "electra"
    """electra: the paper's encoder (post-LayerNorm BERT); modernbert: rotary positions, pre-LayerNorm, which leaves the plateau far earlier."""
    num_layers: int = 12
    """L, of discriminator and generator."""
    hidden_size: int = 256
    """H, width of the discriminator."""
    intermediate_size: int | None = None
    """Width of the feed-forward layer (modernbert: of each of its two gates); None: 4 H."""
    num_heads: int | None = None
    """Attention heads; None: H // 64, at least 1."""
    embedding_size: int | None = 128
    """E, width of the word table; None: H. modernbert has H always."""
    max_positions: int = 512
    """Rows of the position table."""
    dropout: float = 0.1
    """On embeddings, attention and residual branches. The paper: 0.1."""
    generator_hidden_size: float = 0.25
    """Width of the generator as a share of H. The paper: 1/4 to 1/2 (section 3.2); the released small model has 1.0."""
    generator_layers: float = 1.0
    """Depth of the generator as a share of L."""
    untied_generator: bool = True
    """False: one network plays both roles, only the two heads differ (the paper's "tie all weights")."""
    untied_generator_embeddings: bool = False
    """True: the generator has embedding tables of its own width, and its head predicts from them."""
    sequence_length: int = 128
    """Tokens of a training row."""
    blank_lines_separate_documents: bool = True
    """False: an example may run on over documents of one file (the official code's OpenWebText mode)."""
    split_long_sentences: bool = False
    """Cut lines into sentences of a quarter row at most. The official builder takes a line as one sentence and drops what does not fit into the row:
    with paragraphs as lines that is most of the text."""
    example_seed: int = 0
    """Seed of the example builder's coins."""
    mask_ratio: float = 0.15
    """Share of the tokens that the generator predicts. The paper: 0.15, large 0.25."""
    mask_sampling: Literal["with_replacement", "without_replacement"] = "with_replacement"
    """with_replacement is the official code: a position may come twice (google-research/electra#41 recommends the other)."""
    official_duplicate_mean: bool = False
    """Repeats the official code's quirk: a position drawn twice gets the mean of its two sampled ids, an unrelated token."""
    temperature: float = 1.0
    """Of the generator's samples."""
    disallow_correct: bool = False
    """Never sample the original token, so that every chosen position is replaced."""
    uniform_generator: bool = False
    """No generator: replacements are uniform over the vocabulary."""
    gen_weight: float = 1.0
    """Weight of the generator's loss."""
    disc_weight: float = 50.0
    """Weight of the discriminator's loss (lambda, section 3.3)."""
    arm: Arm = "electra"
    """The method, or an ablation of section 3.4: electra_15 (loss on the chosen positions only), mlm (BERT; the code's electra_objective=False),
    replace_mlm (predict the originals from the generator's text), all_tokens_mlm (predict every token through a copy gate)."""
    main_weight: float = 1.0
    """Weight of the main network's loss in replace_mlm and all_tokens_mlm."""
    causal_start: int = 0
    """First steps in which the generator (arm mlm: the one network) is trained as a causal language model."""
    generator_start: int = 0
    """Next steps in which the generator is trained alone; its weights are then copied into the discriminator (the paper's two-stage idea)."""
    plateau_margin: float = 0.5
    """Nats below the unigram entropy that the generator's loss should be before its weights are copied; otherwise the run says so."""

    @property
    def heads(self) -> int:
        return self.num_heads or max(1, self.hidden_size // 64)

    @property
    def feed_forward(self) -> int:
        return self.intermediate_size or 4 * self.hidden_size

    @property
    def generator_width(self) -> int:
        return round(self.hidden_size * self.generator_hidden_size)

    @property
    def has_generator(self) -> bool:
        return self.arm != "mlm" and not self.uniform_generator

    def check(self, data: TextConfig | None = None) -> None:
        """Refuses what no run can have, before a text is read. Raises UsageError."""
        check(self)

    def check_own(self) -> None:
        """The same of what a model of --init does not bring."""
        refuse_outside({name: getattr(self, name) for name in BOUNDS}, BOUNDS, "method.")

    @property
    def has_rtd_head(self) -> bool:
        return self.arm in ("electra", "electra_15")


def check(config: ElectraConfig) -> None:
    """Refuses settings that cannot be built, and warns of those that rarely help.

    Raises:
        UsageError: the setting and what to choose instead.
    """
    config.check_own()
    refuse_outside({name: getattr(config, name) for name in OF_NETWORK}, OF_NETWORK, "method.")
    width = config.generator_width
    if config.architecture == "electra" and config.sequence_length > config.max_positions:
        raise UsageError(
            f"Rows of {config.sequence_length} tokens do not fit the position table of {config.max_positions}.",
            "Lower --method.sequence-length or raise --method.max-positions.",
        )
    if config.num_layers < 1 or config.hidden_size < 1 or config.hidden_size % config.heads or not 0 <= config.dropout < 1:
        raise UsageError(
            f"A network of {config.num_layers} layers, width {config.hidden_size}, {config.heads} heads, dropout {config.dropout} cannot be built.",
            "Choose a width that is a multiple of the number of heads, at least one layer, and a dropout below 1.",
        )
    if config.mask_ratio * config.sequence_length < 1:
        logger.warning("mask_ratio %s of %d tokens is less than one token: one is masked anyway", config.mask_ratio, config.sequence_length)
    if config.arm == "mlm" or config.uniform_generator:
        return
    if config.untied_generator:
        heads = max(1, width // 64)
        if width < 1 or width % heads:
            raise UsageError(
                f"A generator of width {width} ({config.generator_hidden_size} of {config.hidden_size}) cannot be split over {heads} heads.",
                "Choose --method.generator-hidden-size so that the width is a multiple of 64 or below 128.",
            )
        if config.architecture == "modernbert" and width != config.hidden_size and not config.untied_generator_embeddings:
            raise UsageError(
                "The modernbert encoder has no projection between embeddings and layers, so a narrower generator cannot share its embeddings.",
                "Set --method.generator-hidden-size 1.0 or --method.untied-generator-embeddings.",
            )
    elif not config.has_rtd_head:
        raise UsageError(f"Arm {config.arm} has two networks by definition.", "Leave --method.untied-generator on.")
    if config.generator_start:
        if not config.untied_generator or config.generator_hidden_size != 1.0 or config.generator_layers != 1.0 or config.untied_generator_embeddings:
            raise UsageError(
                "generator_start copies the generator into the discriminator, so both must be of one size and share their embeddings.",
                "Set --method.generator-hidden-size 1.0 --method.generator-layers 1.0, or --method.generator-start 0.",
            )
    elif config.untied_generator and width >= config.hidden_size:
        logger.warning("the generator is as wide as the discriminator: the paper found 1/4 to 1/2 of the width best (figure 3)")


def start_lengths(config: ElectraConfig, total_steps: int) -> tuple[int, int]:
    """Steps of the causal and of the generator-only phase in a run of `total_steps`: the configured ones, shortened to 45 % of a short run."""
    causal = config.causal_start
    generator = config.generator_start if config.has_generator else 0
    scale = min(1.0, LONGEST_START * total_steps / max(1, causal + generator))
    return (max(1, int(causal * scale)) if causal else 0, max(1, int(generator * scale)) if generator else 0)


_ADAM = {"name": "adam-uncorrected", "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "weight_decay": 0.01, "clip_norm": 1.0}
_PAPER_DATA = {"tokenizer_kind": "wordpiece", "vocab_size": 30522, "lowercase": True}


def _paper(config: ElectraConfig, learning_rate: float, batch: int, steps: int) -> Preset:
    schedule = {"name": "electra", "warmup_steps": 10_000, "power": 1.0}
    return Preset(config, batch, _ADAM | {"learning_rate": learning_rate}, schedule, _PAPER_DATA, steps)


PRESETS: dict[str, Preset] = {
    # What a few minutes on a CPU need (docs/methods/electra.md, "Where we differ"): rotary positions, a causal start, a generator of full width that
    # is off the plateau before its weights are copied into the discriminator.
    "tiny": Preset(
        ElectraConfig(
            architecture="modernbert",
            num_layers=2,
            hidden_size=128,
            intermediate_size=256,
            embedding_size=None,
            max_positions=512,
            dropout=0.0,
            generator_hidden_size=1.0,
            sequence_length=64,
            split_long_sentences=True,
            mask_ratio=0.25,
            causal_start=300,
            generator_start=400,
        ),
        batch=32,
        optimizer=_ADAM | {"name": "adamw", "learning_rate": 3e-3},
        schedule={"name": "electra", "warmup_share": 0.1},
        data={"vocab_size": 2048},  # as the tiny presets of mlm and causal-lm, so that one store serves all three
    ),
    # The paper's form at the smallest size: E != H in the discriminator, E == H in the generator, so both branches of the projection are built.
    "tiny-paper": Preset(
        ElectraConfig(num_layers=4, hidden_size=128, num_heads=2, embedding_size=64, max_positions=128, generator_hidden_size=0.5),
        batch=64,
        optimizer=_ADAM | {"learning_rate": 1e-3},
        schedule={"name": "electra", "warmup_share": 0.1},
        data=_PAPER_DATA | {"vocab_size": 4096},
    ),
    "small": _paper(ElectraConfig(), 5e-4, batch=128, steps=1_000_000),
    "base": _paper(
        ElectraConfig(hidden_size=768, embedding_size=768, generator_hidden_size=0.33333, sequence_length=512), 2e-4, batch=256, steps=766_000
    ),
    "large": _paper(
        ElectraConfig(num_layers=24, hidden_size=1024, embedding_size=1024, generator_hidden_size=0.25, sequence_length=512, mask_ratio=0.25),
        2e-4,
        batch=2048,
        steps=400_000,
    ),
}

SETTINGS = Settings(catalog.card("electra"), ElectraConfig, PRESETS)
