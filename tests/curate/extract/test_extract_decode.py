"""From bytes to characters."""

from __future__ import annotations

import codecs

import pytest

from headstart.curate.extract import PageDropped, extract
from headstart.curate.extract.decode import clean, decode

FRENCH = "<p>Une équation du deuxième degré à coefficients réels possède des solutions, où le discriminant détermine leur nombre.</p>"
RUSSIAN = "<p>Уравнение второй степени имеет действительные корни, когда дискриминант неотрицателен, и не имеет их в противном случае.</p>"
CHINESE = "<p>二次方程在判别式非负时有实数根，否则没有实数根。本文介绍如何用牛顿迭代法求方程的近似解。</p>"


def meta(charset: str, body: str) -> str:
    return f"<html><head><meta charset='{charset}'></head><body>{body}</body></html>"


def test_utf8_comes_first_whatever_is_declared() -> None:
    assert decode(meta("gb2312", CHINESE).encode(), "text/html; charset=iso-8859-1")[1] == "utf-8"
    assert decode(FRENCH.encode(), "text/html; charset=iso-8859-1") == (FRENCH, "utf-8")


@pytest.mark.parametrize(
    ("label", "encoding", "text", "name"),
    [
        ("iso-8859-1", "cp1252", FRENCH + "“quoted”", "cp1252"),
        ("windows-1251", "cp1251", RUSSIAN, "cp1251"),
        ("koi8-r", "koi8-r", RUSSIAN, "koi8-r"),
        ("gb2312", "gb18030", CHINESE, "gb18030"),
        ("big5", "big5", "<p>二次方程式</p>", "big5hkscs"),
        ("shift_jis", "cp932", "<p>二次方程式の解</p>", "cp932"),
        ("iso-2022-jp", "iso2022_jp", "<p>二次方程式の解</p>", "iso2022_jp"),
    ],
)
@pytest.mark.parametrize("where", ["page", "header"])
def test_declared_encodings(label: str, encoding: str, text: str, name: str, where: str) -> None:
    html = meta(label, text) if where == "page" else f"<html><body>{text}</body></html>"
    assert decode(html.encode(encoding), "" if where == "page" else f"text/html; charset={label}") == (html, name)


@pytest.mark.parametrize(("encoding", "text"), [("cp1251", RUSSIAN), ("gb18030", CHINESE), ("cp1252", FRENCH)])
def test_undeclared_encodings_are_detected(encoding: str, text: str) -> None:
    html = f"<html><body>{text * 5}</body></html>"
    assert decode(html.encode(encoding))[0] == html


def test_a_declaration_that_cannot_be_is_not_believed() -> None:
    html = meta("iso-8859-1", CHINESE * 5)
    assert decode(html.encode("gb18030"))[0] == html
    unknown = meta("x-no-such-thing", RUSSIAN * 5)
    assert decode(unknown.encode("cp1251"))[0] == unknown
    assert decode(meta("punycode", CHINESE).encode())[1] == "utf-8"


@pytest.mark.parametrize(("mark", "encoding"), [(codecs.BOM_UTF8, "utf-8"), (codecs.BOM_UTF16_LE, "utf-16-le"), (codecs.BOM_UTF16_BE, "utf-16-be")])
def test_byte_order_marks(mark: bytes, encoding: str) -> None:
    assert decode(mark + CHINESE.encode(encoding))[0] == CHINESE


def test_utf16_without_a_mark() -> None:
    html = f"<html><body>{FRENCH}</body></html>"
    assert decode(html.encode("utf-16-le")) == (html, "utf-16-le")
    assert decode(html.encode("utf-16-be")) == (html, "utf-16-be")


def test_a_page_cut_inside_a_character() -> None:
    html = f"<html><body>{CHINESE}"
    whole = html.encode() + "数".encode()
    assert decode(whole[:-1]) == (html, "utf-8")


def test_one_broken_byte_does_not_change_the_encoding() -> None:
    html = f"<html><body>{CHINESE * 3}</body></html>"
    text, name = decode(html.encode().replace(b"</body>", b"\xff</body>"))
    assert (text, name) == (html.replace("</body>", "\ufffd</body>"), "utf-8")


def test_what_is_no_encoding_is_dropped() -> None:
    noise = b"<html><body>" + bytes((7 * number * number + 3 * number) % 255 + 1 for number in range(4000)) + b"\x81\x8d\xff" * 50
    with pytest.raises(PageDropped) as dropped:
        extract(noise)
    assert dropped.value.reason in ("charset", "not html")


def test_control_characters_and_lone_surrogates() -> None:
    text = "<p>" + "many words " * 20
    assert decode(text.encode() + b"a\x00b\x07c\x1bd\x7f</p>")[0] == text + "abcd</p>"
    assert clean("a\x00b\x1e\ud800c") == "ab\ufffdc"
