"""The card of `rts`, as an entry of `LANGUAGE_CARDS` in src/headstart/catalog/language.py."""

from headstart.catalog.card import Card
from headstart.catalog.language import TEXT_EXAMPLE

CARD = Card(
    slug="rts",
    title="Efficient pre-training objectives for Transformers",
    arxiv="2104.09694",
    year=2021,
    venue="arXiv",
    family="text",
    data_kinds=("text",),
    needs="plain text, as mlm",
    gives="an encoder (a transformers folder)",
    claim="Detecting random replacements trains an encoder about as well as masked language modelling, at a lower cost.",
    expect="cheap steps; replacements are easy to see, so it learns less from each token than electra",
    choose_when="you want the simplest discriminative method as a rival",
    avoid_when="you need a model that fills masks or writes text",
    official_code="none published with the paper",
    data_example=TEXT_EXAMPLE,
)
