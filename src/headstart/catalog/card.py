"""What a card says of a method, and the closed lists that cards choose from."""

from __future__ import annotations

from dataclasses import dataclass

FAMILIES: tuple[str, ...] = (
    "text",
    "language-model",
    "code",
    "dialogue",
    "retrieval",
    "image-text",
    "image",
    "3-d",
    "speech",
    "video",
    "decision",
    "intervention",
    "planning",
    "data-pipeline",
)
"""In the order in which `headstart list` prints them."""

DATA_KINDS: dict[str, str] = {
    "text": "plain text documents",
    "labelled text": "texts with a label",
    "records": "records with named fields (ratings, categories, titles)",
    "linked pages": "pages with sections and links between them",
    "dialogue": "conversations, turn by turn",
    "code": "source code",
    "html": "crawled web pages",
    "images": "images",
    "labelled images": "images in one folder per class",
    "image pairs": "two views of one scene",
    "captioned images": "images with captions",
    "interleaved documents": "documents of texts with images in their places",
    "multiband": "images with more than three bands",
    "volumes": "medical volumes (CT, MR)",
    "meshes": "3-D meshes or point clouds",
    "audio": "speech recordings",
    "transcribed audio": "recordings with transcripts",
    "translated audio": "recordings with transcripts and translations",
    "video": "video without actions",
    "trajectories": "episodes with actions and rewards",
    "scored objects": "discrete objects (strings) with a score",
    "loss table": "losses of finished runs by model size, tokens and mixture",
}
"""The kinds of data that a method may ask for, in plain words. `headstart list --data FOLDER` looks for these."""


@dataclass(frozen=True, slots=True)
class Card:
    """What is known of a published method before any of its code runs.

    Figures in `expect` are the paper's own and say so; what this library measured is in `claims/results/`.
    """

    slug: str
    """Name on the command line; also the file name of its spec."""
    title: str
    arxiv: str
    """arXiv identifier of the paper."""
    year: int
    """Year of publication at `venue`."""
    venue: str
    family: str
    """One of `FAMILIES`."""
    data_kinds: tuple[str, ...]
    """Keys of `DATA_KINDS`; one of them suffices to consider the method."""
    needs: str
    """All that must be at hand: data, and a starting model where there is no method without one."""
    gives: str
    """What is kept after the run, and in which format."""
    claim: str
    """The paper's central statement, as `headstart claim` tests it."""
    expect: str
    """What to expect on data of one's own, drawbacks included."""
    choose_when: str
    avoid_when: str
    official_code: str
    """Repository of the authors (`owner/name`), or a sentence that says there is none."""
    data_example: str
    """Example lines of an input file, or the layout of an input folder."""
