"""Settings of curation, a dataclass a stage. Defaults are the paper's where it gives a number (webmath A0 to A9), ours where the specification
chose."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class ReadConfig:
    """Reading a crawl."""

    snapshot: str | None = None
    """Name of the crawl, where files and records do not say it (CC-MAIN-2023-50)."""
    max_record_mb: int = 64
    """Longer records are passed over and counted."""
    max_bad_share: float = 0.05
    """More unreadable records than this share stop the run."""
    timeout_s: float = 60.0
    """Seconds that a server may take to answer, or to go on with an answer."""
    tries: int = 5
    """Times that a server is asked for what does not come, with pauses of 1, 2, 4 ... seconds; a file is taken up where it broke off."""


@dataclass(frozen=True)
class PrefilterConfig:
    """Pages that are not looked at."""

    min_bytes: int = 200
    """Shorter pages are dropped."""
    max_bytes: int = 16 * 2**20
    """Longer pages are dropped."""
    max_url: int = 2048
    """Characters of a URL."""


@dataclass(frozen=True)
class LanguageConfig:
    """Language identification."""

    keep: tuple[str, ...] = ("en", "zh")
    """Languages that stay; none: every language, also where it is in doubt."""
    at_least: float = 0.5
    """Probability of the language. The paper names none; FineWeb uses 0.65."""
    model: Path | None = None
    """A fastText model such as lid.176.bin (needs the package fasttext); None: the identifier that comes with py3langid."""


@dataclass(frozen=True)
class RecallConfig:
    """The first classifier: cheap, and keeps nearly everything of the domain."""

    model: Path | None = None
    """A classifier (.safetensors of ours, or fastText's .bin); None: one is trained from `positives` and random documents of the crawl."""
    positives: Path | None = None
    """Documents of the domain, a .jsonl, .txt or .parquet file with the field text; None: pages that the rules score as mathematics."""
    at_least: float = 0.4
    """Documents of this probability stay."""
    negatives: int = 500_000
    """Random documents that are learned from as the other side, at most."""
    seed: int = 0
    """Decides the initial vectors and the order of the documents."""


@dataclass(frozen=True)
class NearConfig:
    """Near-duplicates: MinHash over 5-grams, 14 bands of 8."""

    keep: Literal["newer", "older"] = "newer"
    """Which of two snapshots keeps a page that is in both."""
    pairs: bool = True
    """Compare each snapshot with its neighbour in time, after each by itself."""


@dataclass(frozen=True)
class UrlConfig:
    """Pages of the same address."""

    scope: Literal["year", "all", "snapshot"] = "year"
    """Among which snapshots an address may stand once."""
    normalise: bool = False
    """Take addresses as equal that differ in scheme, fragment or a slash at the end."""


@dataclass(frozen=True)
class RulesConfig:
    """Simple rules on a document."""

    punctuation: Literal["text", "paper", "off"] = "text"
    """Over which text the share of punctuation is taken: without formulas (text) or with them (paper); English only."""
    max_punctuation: float = 0.3
    """Share of punctuation characters."""
    lorem_under: int = 1000
    """A text with "lorem ipsum" goes if it has fewer characters."""
    nsfw_words: Path | None = None
    """A file of words, one a line; None: our own short list."""
    min_words: int = 0
    """Documents of fewer words go; the paper has no such rule."""


@dataclass(frozen=True)
class PrivateConfig:
    """Personal data."""

    mask: bool = False
    """Replace e-mail addresses, public IP addresses and telephone numbers (FineWeb does; the paper does not speak of it)."""


@dataclass(frozen=True)
class PrecisionConfig:
    """The second classifier: trained on scores of a sample, keeps what is clearly of the domain."""

    model: Path | None = None
    """A classifier; None: one is trained from scores."""
    scores: Path | None = None
    """A .jsonl of {"url", "score"} for documents of the crawl; None: `endpoint`, and without one the rules."""
    endpoint: str | None = None
    """Base URL of a server that speaks OpenAI's chat API; it scores the sample."""
    endpoint_model: str = ""
    """Name of its model."""
    sample: int = 1_000_000
    """Documents that are scored, at most."""
    positive_from: float = 6.0
    """Scores from here on are positive."""
    at_least: float = 0.5
    """Documents of this probability stay. The paper gives no threshold."""
    rounds: int = 1
    """Times that a sample is scored and the classifier trained; later samples are half of what it finds doubtful."""
    lemmatise: Literal["none", "rules"] = "none"
    """Words to their stem before learning: not, or by a short list of English endings."""
    seed: int = 0
    """Decides samples, initial vectors and the order of the documents."""

    @property
    def view(self) -> str:
        """How the classifier sees a text (`classify.VIEWS`)."""
        return "cleaned" if self.lemmatise == "none" else "cleaned and stemmed"


@dataclass(frozen=True)
class ImagesConfig:
    """Which image addresses stay in the documents, and whether the images are fetched."""

    max_documents: int = 10
    """Addresses in more documents go."""
    max_images: int = 100
    """A document with more images loses them all."""
    keywords: Literal["name", "paper"] = "name"
    """Where logo, banner, avatar and icon are looked for: in the last two parts of the path, or anywhere in the address (paper)."""
    https: bool = True
    """Only https addresses stay."""
    min_side: int = 32
    """Images go of which the page (width and height) or their address (/16x16/, 20px-, ?w=) says that no side has so many pixels; 0 (the paper): only
    trackers of one pixel go."""
    ads: bool = True
    """Images of advertisers and counters go, by host and folder (the paper has no such rule)."""
    galleries: Literal["thin", "keep"] = "thin"
    """Documents with more images than texts, which training refuses. thin: of images one after another the later ones leave, then the last, until
    there are no more than texts; keep (the paper): all stay."""
    download: bool = False
    """Fetch the images, and keep in the documents those that arrived."""
    per_host: int = 2
    """Requests at a time to one host."""
    delay_s: float = 0.5
    """Between two requests to one host, seconds."""
    max_image_mb: float = 10.0
    """Longer answers are left."""
    allow_private: bool = False
    """Also fetch from addresses of a private network. Off: a page cannot make this machine ask another behind your firewall."""


@dataclass(frozen=True)
class DecontaminateConfig:
    """Documents that quote a benchmark."""

    benchmarks: tuple[Path, ...] = ()
    """Files of test items, .jsonl, .txt or .parquet; all strings of a record are one item. None: nothing is looked for."""
    n_gram: int = 10
    """So many words in a row are a quotation. Of items whose longest string has fewer, and 3 at least, this string must stand there whole."""


@dataclass
class CurateConfig:
    """Everything that decides what comes out."""

    read: ReadConfig = field(default_factory=ReadConfig)
    prefilter: PrefilterConfig = field(default_factory=PrefilterConfig)
    language: LanguageConfig = field(default_factory=LanguageConfig)
    recall: RecallConfig = field(default_factory=RecallConfig)
    near: NearConfig = field(default_factory=NearConfig)
    urls: UrlConfig = field(default_factory=UrlConfig)
    rules: RulesConfig = field(default_factory=RulesConfig)
    private: PrivateConfig = field(default_factory=PrivateConfig)
    precision: PrecisionConfig = field(default_factory=PrecisionConfig)
    images: ImagesConfig = field(default_factory=ImagesConfig)
    decontaminate: DecontaminateConfig = field(default_factory=DecontaminateConfig)
    math: bool = True
    """Look for formulas."""
    with_images: bool = True
    """Keep images in their places."""
    page_seconds: float = 10.0
    """Seconds that one page may take."""
    layout: Literal["webmath", "obelics"] = "webmath"
    """Columns of the output: {URL, text_list, image_list, metadata} or {texts, images, metadata, general_metadata}."""
    form: Literal["parquet", "jsonl"] = "parquet"
    """Files of the output: Parquet, or JSON lines."""


def defaults(recipe: str) -> CurateConfig:
    """The settings that a recipe begins with: `text` looks for no mathematics, keeps every language, no images, and masks personal data, as the stage
    `private` does."""
    if recipe == "private":
        return CurateConfig(private=PrivateConfig(mask=True))
    if recipe != "text":
        return CurateConfig()
    return CurateConfig(language=LanguageConfig(keep=()), private=PrivateConfig(mask=True), math=False, with_images=False)
