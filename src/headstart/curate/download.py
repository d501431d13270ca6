"""Fetching the images of a corpus (webmath A8): politely, within limits, never from a private network, and only what is a real PNG or JPEG.

Each answer is written to a log as it comes, so a killed download goes on with what is missing. A host is asked by few requests at a time, with a
pause
between two, and what its robots.txt forbids is not asked for.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import ipaddress
import os
import re
import shutil
import socket
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit
from urllib.robotparser import RobotFileParser

import pyarrow as pa

from headstart.core.curation import ANSWERS
from headstart.core.errors import BadInput, MissingDependency
from headstart.core.files import atomic_write, inside
from headstart.core.journal import Journal, read_journal
from headstart.core.machine import writing
from headstart.core.progress import Reporter
from headstart.curate.config import ImagesConfig
from headstart.curate.loop import finished

AGENT = "headstart-curate"
TIMEOUT_S = 30.0
"""For one answer, whole."""
CONNECT_S = 10.0
MAX_REDIRECTS = 5
MAX_ROBOTS = 1 << 19
MAX_PIXELS = 1 << 26
PARALLEL = 64
"""Requests at a time over all hosts."""
GIVE_UP = 5
"""Times in a row that a host does not answer, after which its other images are left."""
SILENT = ("timeout", "no connection")
LEFT = "host does not answer"
UNKNOWN_RULES = "robots.txt cannot be read"
TRANSIENT = (*SILENT, "cut off", LEFT, UNKNOWN_RULES)
"""Asked for again by a download that goes on."""
RULES = ("user-agent", "allow", "disallow")
"""Lines of a robots.txt that are followed; Python's reader stumbles over odd numbers in others."""
ENDINGS = {"PNG": ".png", "JPEG": ".jpg"}
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_HASH = re.compile(r"[0-9a-f]{64}")
_FILE = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}\.(?:png|jpg)")


@dataclass(frozen=True)
class Answer:
    """What came of one address.

    Attributes:
        status: "fetched", or the reason why not.
        file: within the folder of images; sha256, width, height: of the image.
    """

    url: str
    status: str
    file: str | None = None
    sha256: str | None = None
    width: int | None = None
    height: int | None = None


class NotFetched(Exception):
    """An image that did not come; the text is the status."""


def fetch_images(urls: Iterable[str], folder: Path, config: ImagesConfig, say: Callable[[str], None] = print) -> pa.Table:
    """Fetches images into `folder`, each under the name of its hash, and returns a table of `Answer`s sorted by address.

    Raises:
        MissingDependency: aiohttp or Pillow is not installed.
    """
    try:
        import aiohttp  # noqa: F401
        import PIL  # noqa: F401
    except ImportError as error:
        raise MissingDependency(error.name or "aiohttp", "curate", "Fetching images") from None
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / ANSWERS
    known = _read_log(log, folder)
    wanted = sorted(set(urls))
    todo = [url for url in wanted if url not in known]
    if todo:
        known |= finished(_fetch_all(todo, folder, log, config))
    answers = [known[url] for url in wanted]
    others = Counter(answer.status for answer in answers if answer.status != "fetched")
    told = "; not: " + ", ".join(f"{status} {n:,}" for status, n in others.most_common(4)) + (" ..." if len(others) > 4 else "") if others else ""
    say(f"images: {len(answers) - others.total():,} of {len(answers):,} fetched{told}")
    schema = pa.schema(
        [("url", pa.string()), ("status", pa.string()), ("file", pa.string()), ("sha256", pa.string()), ("width", pa.int32()), ("height", pa.int32())]
    )
    return pa.Table.from_pylist([asdict(answer) for answer in answers], schema=schema)


def carry_images(fetched_into: Iterable[Path], folder: Path, wanted: AbstractSet[str], say: Callable[[str], None] = print) -> None:
    """Takes along the images of some addresses that earlier curations fetched, as links where the disk allows and else as copies, with their answers:
    documents that are curated again keep their images, and a download asks only for the others. A file outside of its folder stays where it is.

    Args:
        fetched_into: folders of images of those curations.
    """
    log = folder / ANSWERS
    known = _read_log(log, folder)
    outside = 0
    with Journal(log) as journal, writing(folder):
        for images in fetched_into:
            for answer in _read_log(images / ANSWERS, images).values():
                if answer.file is not None and answer.url in wanted and answer.url not in known:
                    try:
                        file, to = inside(images, answer.file), inside(folder, answer.file)
                    except BadInput:
                        outside += 1
                        continue
                    _link(file, to)
                    journal.add(asdict(answer))
                    known[answer.url] = answer
    if outside:
        say(f"images: {outside:,} of the input lie outside of their folder (behind a link) and are left")


def _link(file: Path, to: Path) -> None:
    """The same file under another name; where the disk has no links, a copy."""
    if to.is_file():
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(file, to)
    except OSError:
        with file.open("rb") as source, atomic_write(to) as copy:
            shutil.copyfileobj(source, copy)


def _read_log(log: Path, folder: Path) -> dict[str, Answer]:
    """Answers of an earlier download; one whose image is not there is none. The log may come from someone else."""
    known = {}
    for record in read_journal(log):
        try:
            answer = Answer(**record)
            ours = _is_answer(answer) and answer.status not in TRANSIENT and (answer.file is None or (folder / answer.file).is_file())
        except (TypeError, OSError):  # other fields; a folder that is not ours to read
            continue
        if ours:
            known[answer.url] = answer
    return known


def _is_answer(answer: Answer) -> bool:
    """Whether the fields hold what this module writes."""
    if not (isinstance(answer.url, str) and isinstance(answer.status, str) and answer.status.isascii()):
        return False
    if answer.file is None:
        return answer.sha256 is answer.width is answer.height is None
    if not all(type(side) is int and 0 < side <= MAX_PIXELS for side in (answer.width, answer.height)):
        return False
    names = ((_FILE, answer.file), (_HASH, answer.sha256))
    return all(isinstance(name, str) and pattern.fullmatch(name) for pattern, name in names)


async def _fetch_all(urls: list[str], folder: Path, log: Path, config: ImagesConfig) -> dict[str, Answer]:
    import aiohttp

    fetcher = _Fetcher(folder, config)
    waiting: dict[str, list[str]] = defaultdict(list)
    for url in urls:
        waiting[_host(url)].append(url)
    found: dict[str, Answer] = {}
    room = asyncio.Semaphore(PARALLEL)
    resolver: Any = _PublicResolver(config.allow_private)  # aiohttp's base class would have to be imported before it is needed
    connector = aiohttp.TCPConnector(resolver=resolver, limit=PARALLEL, limit_per_host=config.per_host)
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S, sock_connect=CONNECT_S)
    with Reporter("fetch images", len(urls), "images") as reporter, Journal(log) as journal:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, headers={"User-Agent": AGENT}, auto_decompress=False) as session:

            async def one(url: str) -> str:
                async with room:
                    answer = await fetcher.fetch(session, url)
                found[url] = answer
                journal.add(asdict(answer))
                reporter.advance()
                return answer.status

            async def host(own: list[str]) -> None:
                """One host: its addresses one after another, `per_host` at a time, with a pause; left where it is silent."""
                lanes = [own[lane :: config.per_host] for lane in range(config.per_host)]
                silent = 0

                async def lane(part: list[str]) -> None:
                    nonlocal silent
                    for url in part:
                        if silent >= GIVE_UP:
                            found[url] = Answer(url, LEFT)
                            reporter.advance()
                            continue
                        started = time.monotonic()
                        silent = silent + 1 if await one(url) in SILENT else 0
                        await asyncio.sleep(max(0.0, config.delay_s - (time.monotonic() - started)))

                await asyncio.gather(*(lane(part) for part in lanes))

            await asyncio.gather(*(host(own) for own in waiting.values()))
    return found


def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


class _Fetcher:
    """One download: its folder, settings, and what each host's robots.txt says."""

    def __init__(self, folder: Path, config: ImagesConfig) -> None:
        self._folder, self._config = folder, config
        self._limit = int(config.max_image_mb * 2**20)
        self._writing = threading.Lock()
        self._robots: dict[str, asyncio.Task[RobotFileParser | None]] = {}

    async def fetch(self, session: Any, url: str) -> Answer:
        import aiohttp

        try:
            if not await self._allowed(session, url):
                raise NotFetched("robots.txt forbids it")
            data = await self._get(session, url, self._limit)
        except NotFetched as error:
            return Answer(url, str(error))
        except TimeoutError:
            return Answer(url, "timeout")
        except _Private:
            return Answer(url, "private address")
        except aiohttp.ClientSSLError:
            return Answer(url, "no certificate that can be trusted")
        except aiohttp.ClientPayloadError:
            return Answer(url, "cut off")
        except (aiohttp.InvalidURL, ValueError):
            return Answer(url, "no web address")
        except (aiohttp.ClientError, OSError) as error:
            private = isinstance(error.__cause__, _Private) or isinstance(getattr(error, "os_error", None), _Private)
            return Answer(url, "private address" if private else "no connection")
        try:
            with writing(self._folder):
                name, kind = await asyncio.to_thread(self._keep, data)
        except NotFetched as error:
            return Answer(url, str(error))
        return Answer(url, "fetched", name, **kind)

    async def _get(self, session: Any, url: str, limit: int) -> bytes:
        """The body of an address, redirects followed by hand: each new address is checked like the first."""
        for _ in range(MAX_REDIRECTS + 1):
            refuse_private(url, self._config.allow_private)
            async with session.get(url, allow_redirects=False) as response:
                if response.status in (301, 302, 303, 307, 308) and "Location" in response.headers:
                    url = urljoin(url, response.headers["Location"])
                    continue
                if response.status != 200:
                    raise NotFetched(f"status {response.status}")
                if (response.content_length or 0) > limit:
                    raise NotFetched("too large")
                data = bytearray()
                async for chunk in response.content.iter_chunked(1 << 16):
                    data += chunk
                    if len(data) > limit:
                        raise NotFetched("too large")
                return bytes(data)
        raise NotFetched("too many redirects")

    async def _allowed(self, session: Any, url: str) -> bool:
        parts = urlsplit(url)
        root = f"{parts.scheme}://{parts.netloc}"
        if root not in self._robots:
            self._robots[root] = asyncio.create_task(self._read_robots(session, root))
        robots = await self._robots[root]
        return robots is None or robots.can_fetch(AGENT, url)

    async def _read_robots(self, session: Any, root: str) -> RobotFileParser | None:
        """The rules of a host; None where it has none, or does not answer: then its images will not come either.

        Raises:
            NotFetched: there are some, which its server cannot give now (RFC 9309: nothing is allowed then).
        """
        import aiohttp

        try:
            text = (await self._get(session, f"{root}/robots.txt", MAX_ROBOTS)).decode("utf-8-sig", "replace")
        except NotFetched as error:
            if str(error).startswith("status 5"):
                raise NotFetched(UNKNOWN_RULES) from None
            return None
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError):
            return None
        robots = RobotFileParser()
        robots.parse([line for line in text.splitlines() if line.partition(":")[0].strip().lower() in RULES])
        return robots

    def _keep(self, data: bytes) -> tuple[str, dict[str, Any]]:
        """Writes an image that is one; its name and what is known of it."""
        form, width, height = real_image(data)
        digest = hashlib.sha256(data).hexdigest()
        name = f"{digest[:2]}/{digest}{ENDINGS[form]}"
        path = self._folder / name
        with self._writing:  # two addresses may give the same image at the same time
            if not path.is_file():
                path.parent.mkdir(exist_ok=True)
                with atomic_write(path) as file:
                    file.write(data)
        return name, {"sha256": digest, "width": width, "height": height}


def real_image(data: bytes) -> tuple[str, int, int]:
    """(PNG or JPEG, width, height) of bytes that decode as one, looked at before pixels are made.

    Raises:
        NotFetched: they do not, or have too many pixels.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(data), formats=tuple(ENDINGS)) as image:
            width, height = image.size
            if width * height > MAX_PIXELS:
                raise NotFetched("too many pixels")
            image.load()
            return str(image.format), width, height
    except NotFetched:
        raise
    except Exception as error:  # a decoder of files from strangers raises anything
        raise NotFetched("no PNG or JPEG") from error


class _Private(OSError):
    """An address of a private network."""


def refuse_private(url: str, allow: bool) -> None:
    """Raises _Private for an address whose host is written as a number of a private network, ValueError for one that is no web address.

    The host is taken as aiohttp reads it (１２７.0.0.1 is 127.0.0.1), since of a number it asks no resolver.
    """
    from yarl import URL

    host = URL(url).raw_host
    if not url.lower().startswith(("http://", "https://")) or not host:
        raise ValueError("no web address")
    if not allow and (number := _number(host)) is not None and not public(number):
        raise _Private(host)


def _number(host: str) -> str | None:
    """The IP address that a host is written as, also in the ways that only the system's own functions know (127.1, 2130706433, 0x7f.1); None of a
    name: the resolver looks at its addresses."""
    try:
        return str(ipaddress.ip_address(host.partition("%")[0]))
    except ValueError:
        pass
    try:
        return str(ipaddress.IPv4Address(socket.inet_aton(host)))
    except (OSError, ValueError):
        return None


def public(address: str) -> bool:
    """Whether an IP address is one of the open internet, and so is the one that it stands for (IPv6 that holds an IPv4 address)."""
    number = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(number, ipaddress.IPv6Address):
        inner = [number.ipv4_mapped, number.sixtofour, *(number.teredo or ())]
        if number in NAT64 or number.packed[:12] == bytes(12):
            inner.append(ipaddress.IPv4Address(number.packed[12:]))
        if number.ipv4_mapped is not None:
            return public(str(number.ipv4_mapped))
        if not all(one is None or public(str(one)) for one in inner):
            return False
    return number.is_global and not number.is_multicast


class _PublicResolver:
    """Names to addresses, at the moment of the connection (a name may answer otherwise the next time); one with a private address is refused."""

    def __init__(self, allow_private: bool) -> None:
        self._allow = allow_private

    async def resolve(self, host: str, port: int = 0, family: int = socket.AF_INET) -> list[dict[str, Any]]:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        addresses = [(info[4][0], info[4][1], info[0], info[2]) for info in found]
        if not self._allow and not all(public(str(address)) for address, *_ in addresses):
            raise _Private(host)
        return [
            {"hostname": host, "host": address, "port": port or own, "family": kind, "proto": proto, "flags": socket.AI_NUMERICHOST}
            for address, own, kind, proto in addresses
        ]

    async def close(self) -> None:
        """Nothing is held."""
