"""WARC files from anyone: every record comes out or is counted, and what follows damage is read."""

from __future__ import annotations

import gzip
import io
import random
import tracemalloc
import zlib

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.curate.warc import BadResponse, Record, parse_response, read_warc
from tests.curate.crawl import HTML, record, zipped

A, B = record("http://a/", b"a" * 3000), record("http://b/", b"b" * 2000)


def read(data: bytes, **limits: int) -> list[str]:
    """Each record's URL, or the reason why it could not be read."""
    found = list(read_warc(io.BytesIO(data), **limits))
    assert [one.number for one in found] == list(range(len(found)))
    return [one.headers.get("warc-target-uri", "") if isinstance(one, Record) else one.reason for one in found]


@pytest.mark.parametrize(
    "data", [A + B, zipped(A) + zipped(B), zipped(A + B)], ids=["plain", "a member a record", "one member"]
)
def test_records_come_in_order_with_their_blocks(data: bytes) -> None:
    records = list(read_warc(io.BytesIO(data)))
    assert [one.headers["warc-target-uri"] for one in records if isinstance(one, Record)] == ["http://a/", "http://b/"]
    assert isinstance(records[0], Record)
    assert records[0].block == HTML + b"a" * 3000


@pytest.mark.parametrize("pack", [bytes, zipped], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    ("length", "reason"), [(False, "record without length"), ("-4", "bad length"), ("12kB", "bad length"), ("9" * 30, "bad length")]
)
def test_a_record_that_lies_about_its_length_costs_only_itself(pack: type, length: object, reason: str) -> None:
    assert read(pack(A) + pack(record("http://bad/", length=length)) + pack(B)) == ["http://a/", reason, "http://b/"]


def test_a_length_beyond_its_member_does_not_swallow_the_next_records() -> None:
    assert read(zipped(A) + zipped(record("http://bad/", length=10**15)) + zipped(B)) == ["http://a/", "bad length", "http://b/"]


def test_an_oversized_record_is_passed_over_without_being_held() -> None:
    data = zipped(A) + zipped(record("http://big/", random.Random(0).randbytes(3_000_000))) + zipped(B)
    tracemalloc.start()
    assert read(data, max_record=100_000) == ["http://a/", "record too large", "http://b/"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_500_000


def test_a_decompression_bomb_is_left() -> None:
    bomb = zipped(record("http://bomb/", b"\0" * 200_000_000))
    tracemalloc.start()
    assert read(zipped(A) + bomb + zipped(B)) == ["http://a/", "decompression bomb", "http://b/"]
    assert tracemalloc.get_traced_memory()[1] < 150_000_000  # the free part of a member, and copies of it
    tracemalloc.stop()


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (zipped(A) + zipped(B)[:-20], ["http://a/", "truncated gzip member"]),
        (A + B[:-200], ["http://a/", "truncated record"]),
        (A + b"WARC/1.0\r\nWARC-Ty", ["http://a/", "truncated record"]),
        (zipped(A) + zipped(B)[:60] + zipped(A), ["http://a/", "damaged gzip member", "http://a/"]),
        (zipped(A) + b"JUNK" * 5000 + zipped(B), ["http://a/", "damaged gzip member", "http://b/"]),
        (A + b"not a record\r\n" * 50 + B, ["http://a/", "not a WARC record", "http://b/"]),
        (A + b"WARC/1.0\r\n" + b"X: y\r\n" * 20000 + b"\r\n" + B, ["http://a/", "header too large", "http://b/"]),
        (zipped(A) + b"\x1f\x8b\x08" * 200_000 + zipped(B), ["http://a/", "damaged gzip member", "http://b/"]),
        (b"", []),
        (b"\x1f\x8b\x08", ["truncated gzip member"]),
        (b"\x00" * 1000, ["not a WARC record"]),
    ],
    ids=[
        "cut gzip", "cut plain", "cut header", "cut member inside", "junk between", "junk lines", "endless header", "signs of members", "empty",
        "three bytes", "zeros",
    ],
)  # fmt: skip
def test_damage_is_named_and_what_follows_is_read(data: bytes, expected: list[str]) -> None:
    assert read(data) == expected


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_damage_ends_and_keeps_what_lies_before_it(data: st.DataObject) -> None:
    pack = data.draw(st.sampled_from([bytes, zipped]))
    whole = bytearray(pack(A) + pack(B) + pack(A))
    first = len(pack(A))
    for _ in range(data.draw(st.integers(1, 8))):
        whole[data.draw(st.integers(first, len(whole) - 1))] = data.draw(st.integers(0, 255))
    found = read(bytes(whole[: data.draw(st.integers(first, len(whole)))]))
    assert found[0] == "http://a/"
    assert len(found) < 50


# HTTP


def packed(body: bytes, codec: str) -> bytes:
    data: bytes = pa.compress(body, codec=codec, asbytes=True)
    return data


def test_a_response_is_read_with_its_encodings_undone() -> None:
    body = b"<p>hello</p>" * 100
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (body[:700], body[700:])) + b"0\r\n\r\n"
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    bare = zlib.compressobj(wbits=-15)
    messages = {
        "plain": head + b"\r\n" + body,
        "chunked": head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked,
        "chunked in name only": head + b"Transfer-Encoding: chunked\r\n\r\n" + body,
        "gzip": head + b"Content-Encoding: gzip\r\n\r\n" + gzip.compress(body),
        "gzip in name only": head + b"Content-Encoding: gzip\r\n\r\n" + body,
        "deflate": head + b"Content-Encoding: deflate\r\n\r\n" + zlib.compress(body),
        "bare deflate": head + b"Content-Encoding: deflate\r\n\r\n" + bare.compress(body) + bare.flush(),
        "brotli": head + b"Content-Encoding: br\r\n\r\n" + packed(body, "brotli"),
        "zstd": head + b"Content-Encoding: zstd\r\n\r\n" + packed(body, "zstd"),
        "brotli in name only": head + b"Content-Encoding: br\r\n\r\n" + body,
        "newlines": b"HTTP/1.0 200 OK\nContent-Type: text/html\n\n" + body,
    }
    for name, message in messages.items():
        response = parse_response(message)
        assert (response.status, response.headers["content-type"], response.body) == (200, "text/html", body), name


def test_brotli_that_looks_like_a_page_is_decoded() -> None:
    """A piece that was flushed may begin with white space and "<"."""
    page = b"\t<\x80" + b"a" * 121 + b"\x03"  # 121 bytes as they are, and the end
    assert parse_response(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\n" + page).body == b"a" * 121


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "no HTTP response"),
        (b"<html>no header</html>", "no HTTP response"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: compress\r\n\r\nxx", "unknown content encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\n\r\nxx", "damaged content encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: zstd\r\n\r\n" + packed(bytes(2_000_000), "zstd"), "decompression bomb"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n\x1f\x8b\x08broken", "damaged content encoding"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(bytes(2_000_000)), "decompression bomb"),
    ],
    ids=["nothing", "no header", "compress", "broken brotli", "zstd bomb", "broken gzip", "bomb"],
)
def test_a_response_that_cannot_be_read_says_why(message: bytes, reason: str) -> None:
    with pytest.raises(BadResponse, match=reason):
        parse_response(message, max_body=1_000_000)
