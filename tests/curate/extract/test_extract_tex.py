"""TeX as strings, MathML and AsciiMath as LaTeX, delimiters, the score."""

from __future__ import annotations

import pytest
from selectolax.lexbor import LexborHTMLParser

from headstart.curate.extract import asciimath, mathml, score
from headstart.curate.extract.delimiters import configured, delimiters, formulas, whole
from headstart.curate.extract.symbols import symbol
from headstart.curate.extract.tex import normalise, only_defines, refusal


@pytest.mark.parametrize(
    ("tex", "normal"),
    [
        ("  a \n  + b ", "a + b"),
        ("$x$", "x"),
        ("$$ x $$", "x"),
        (r"\(x\)", "x"),
        (r"\[ x \]", "x"),
        ("$x$ and $y$", "$x$ and $y$"),
        (r"$a \text{ if $b$}$", r"a \text{ if $b$}"),
        (r"{\displaystyle A{\text{ x}}}", r"A{\text{ x}}"),
        (r"{\textstyle \frac{1}{2}}", r"\frac{1}{2}"),
        (r"{\displaystyle a}+{b}", r"{\displaystyle a}+{b}"),
        (r"{\displaystyles}", r"{\displaystyles}"),
        (r"\textcolor[rgb]{0,0,1}{x}", "{x}"),
        (r"\textcolor{red}{x}", "{x}"),
        ("a &lt; b &amp; c &#43; d", "a < b & c + d"),
        (r"a & b \\ c &d", r"a & b \\ c &d"),
        ("x\\ ", "x"),
        ("x\\\\", "x\\\\"),
        ("$", "$"),
        ("", ""),
    ],
)
def test_normalise(tex: str, normal: str) -> None:
    assert normalise(tex) == normal
    assert normalise(normal) == normal, "once is enough"


@pytest.mark.parametrize(
    ("tex", "defines"),
    [
        (r"\newcommand{\N}{\mathbb N} \renewcommand\f[1]{a{#1}b} \def\x#1#2{y} \let\a=\b \DeclareMathOperator{\lcm}{lcm}", True),
        (r"\newcommand{\a}[2][x]{b}", True),
        (r"\require{ams}", True),
        (r"\newcommand{\a}{b}\alpha", False),
        (r"\def\x{1} x", False),
        (r"\newcommand{\a}{b", False),
        (r"\alpha", False),
        ("x", False),
        ("", False),
    ],
)
def test_only_defines(tex: str, defines: bool) -> None:
    assert only_defines(tex) == defines


@pytest.mark.parametrize(
    ("tex", "why"),
    [
        ("x", None),
        ("", "empty"),
        ("x" * 101, "too long"),
        (r"\def\x{1}", "only macros"),
        ("the first apple and the second one", "mostly text"),
        (r"\text{the first apple and the second one}", None),
        (r"f(x) = \begin{cases} 1 & \mbox{if } x > 0 \\ 0 & \mbox{otherwise} \end{cases}", None),
        ("speed = distance / time", "mostly text"),
        ("rate = x", None),
        ("这个句子里面没有任何数学公式", "mostly text"),
        ("速度 = 路程 / 时间", None),
    ],
)
def test_what_is_no_formula(tex: str, why: str | None) -> None:
    assert refusal(tex, 100, delimited=True) == why


def found(text: str) -> list[tuple[str, bool]]:
    return [(inner, display) for _, _, inner, display, _ in formulas(text, delimiters(), 5000, lambda: None)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("price $x$ is", [("x", False)]),
        ("costs $5 and $6", []),
        ("from $5 to $6", []),
        ("$x$2", []),
        ("$ x$ and $y $", []),
        ("$" + "x" * 300 + "$", [("x" * 300, False)]),
        ("$" + "x" * 301 + "$", []),
        ("$x\n\n y$", []),
        (r"a \$5 $y$", [("y", False)]),
        (r"\\[2pt] \[w\]", [("w", True)]),
        (r"\(a\)\)", [("a", False)]),
        (r"$\{x$ and $\{y\}$", [(r"\{x", False), (r"\{y\}", False)]),
        ("${x$ and $y}$", [("{x$ and $y}", False)]),
        ("$$x$ and $$", [("x$ and ", True)]),
        ("$$ open", []),
        (r"\begin{align*} a \end{align} \end{align*}", [(r"\begin{align*} a \end{align} \end{align*}", True)]),
        (r"\begin{align} a", []),
        (r"\begin{tabular}{c} a \end{tabular}", []),
    ],
)
def test_delimited_formulas(text: str, expected: list[tuple[str, bool]]) -> None:
    assert found(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" $x$ ", ("x", False)),
        (r"\[x\]", ("x", True)),
        (r"\[x\]\[y\]", None),
        ("$x$.", None),
        ("a $x$", None),
        (r"\begin{align}x\end{align}", (r"\begin{align}x\end{align}", True)),
        ("$x", None),
    ],
)
def test_a_whole_text_between_one_pair(text: str, expected: tuple[str, bool] | None) -> None:
    assert whole(text, delimiters()) == expected


def test_configured_delimiters() -> None:
    script = r"""MathJax.Hub.Config({tex2jax: {inlineMath: [['$','$'], ["\\(","\\)"], ['`','`'], ['ab','cd']], processEscapes: true}});
    displayMath = [ ['[[', ']]'] ]; delimiters: [ {left: "%%", right: "%%", display: true}, {"left": '\\[', "right": '\\]'}]"""
    assert set(configured(script)) == {("`", "`", False), ("[[", "]]", True), ("%%", "%%", True)}


MATHML = {
    "accents": (
        "<mover><mi>x</mi><mo>^</mo></mover><mover><mi>x</mi><mo>¯</mo></mover><mover><mi>v</mi><mo>→</mo></mover><mover><mi>x</mi><mo>˙</mo></mover>",
        r"\hat{x}\bar{x}\vec{v}\dot{x}",
    ),
    "wide accents": (
        "<mover><mrow><mi>A</mi><mi>B</mi></mrow><mo>¯</mo></mover><mover><mrow><mi>a</mi><mi>b</mi></mrow><mo>~</mo></mover>",
        r"\overline{AB}\widetilde{ab}",
    ),
    "overset": ("<mover><mo>=</mo><mtext>def</mtext></mover>", r"\overset{\text{def}}{=}"),
    "limits": ("<munder><mi>lim</mi><mrow><mi>n</mi><mo>→</mo><mi>∞</mi></mrow></munder><mi>x</mi>", r"\lim_{n\rightarrow\infty}x"),
    "underline": ("<munder><mi>x</mi><mo>_</mo></munder>", r"\underline{x}"),
    "braces": ("<mover><mrow><mi>a</mi><mo>+</mo><mi>b</mi></mrow><mover><mo>⏞</mo><mi>k</mi></mover></mover>", r"\overbrace{a+b}^{k}"),
    "scripts": ("<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup><msup><mi>f</mi><mo>′</mo></msup>", r"x_{1}^{2}f'"),
    "base of several signs": ("<msup><mrow><mo>(</mo><mi>a</mi><mo>)</mo></mrow><mn>2</mn></msup>", "{(a)}^{2}"),
    "before the base": ("<mmultiscripts><mi>F</mi><mn>3</mn><none/><mprescripts/><mn>2</mn><none/></mmultiscripts>", "{}_{2}F_{3}"),
    "roots": ("<msqrt><mi>x</mi><mo>+</mo><mn>1</mn></msqrt><mroot><mi>x</mi><mn>3</mn></mroot>", r"\sqrt{x+1}\sqrt[3]{x}"),
    "binomial": ("<mrow><mo>(</mo><mfrac linethickness=0px><mi>n</mi><mi>k</mi></mfrac><mo>)</mo></mrow>", r"\binom{n}{k}"),
    "matrix": (
        "<mrow><mo>[</mo><mtable><mtr><mtd><mi>a</mi></mtd><mtd><mi>b</mi></mtd></mtr><mtr><mtd><mi>c</mi></mtd><mtd></mtd></mtr></mtable><mo>]</mo></mrow>",
        r"\left[\begin{matrix}a & b \\ c & \end{matrix}\right]",
    ),
    "cases": ("<mrow><mo>{</mo><mtable><mtr><mtd><mi>a</mi></mtd></mtr></mtable></mrow>", r"\left\{\begin{matrix}a\end{matrix}\right."),
    "fenced": ("<mfenced open='[' close=')'><mi>a</mi><mi>b</mi></mfenced>", r"\left[a,b\right)"),
    "alphabets": (
        "<mi mathvariant=bold>v</mi><mi>ℝ</mi><mi>𝐱</mi><mi>𝛼</mi><mi mathvariant=normal>d</mi>",
        r"\mathbf{v}\mathbb{R}\mathbf{x}\alpha\mathrm{d}",
    ),
    "invisible operators": ("<mi>a</mi><mo>&#x2062;</mo><mi>sin</mi><mo>&#x2061;</mo><mi>x</mi>", r"a\sin x"),
    "functions": ("<mi>sin</mi><mi>x</mi><mo>rank</mo>", r"\sin x\operatorname{rank}"),
    "text": ("<mi>x</mi><mtext>&nbsp;if 5% </mtext>", r"x\text{ if 5\%}"),
    "spaces": ("<mi>a</mi><mspace width=1em /><mi>b</mi><mspace width=0.1em /><mi>c</mi>", r"a\quad b\,c"),
    "children only": ("<mstyle><mrow><mpadded><mi>a</mi></mpadded></mrow></mstyle><mphantom><mi>q</mi></mphantom>", "a"),
    "semantics": ("<semantics><mi>a</mi><mi>b</mi><annotation-xml><mi>c</mi></annotation-xml></semantics>", "a"),
    "strike": ("<menclose notation=updiagonalstrike><mi>x</mi></menclose>", r"\cancel{x}"),
    "too few children": ("<mfrac><mi>a</mi></mfrac><msup><mi>b</mi></msup><msup></msup>", "ab"),
    "special signs": ("<mo>{</mo><mi>%</mi><mo>}</mo><mo>−</mo>", r"\{\%\}-"),
}


@pytest.mark.parametrize(("source", "tex"), list(MATHML.values()), ids=list(MATHML))
def test_mathml(source: str, tex: str) -> None:
    math = LexborHTMLParser(f"<math>{source}</math>").css_first("math")
    assert mathml.to_tex(math, lambda: None) == tex


def test_deep_mathml_gives_its_text_and_takes_no_longer_for_it() -> None:
    calls = 0

    def tick() -> None:
        nonlocal calls
        calls += 1

    math = LexborHTMLParser("<math>" + "<mover><mi>a</mi><mover><mo>⏞</mo>" * 300 + "<mi>x</mi>").css_first("math")
    assert "x" in mathml.to_tex(math, tick)
    assert calls < 1000, "each element is converted once"


@pytest.mark.parametrize(
    ("source", "tex"),
    [
        ("sum_(i=1)^n i^3=((n(n+1))/2)^2", r"\sum_{i=1}^{n}i^{3}=\left(\frac{n(n+1)}{2}\right)^{2}"),
        ("sqrt(x^2+1)/2", r"\frac{\sqrt{x^{2}+1}}{2}"),
        ("[[a,b],[c,d]]", r"\left[\begin{matrix}a & b \\ c & d\end{matrix}\right]"),
        ("{(2x, if x>0),(0, if x=0):}", r"\left\{\begin{matrix}2x & \text{if}x>0 \\ 0 & \text{if}x=0\end{matrix}\right."),
        ("x in RR", r"x\in\mathbb{R}"),
        ("int_0^oo e^(-x^2) dx", r"\int_{0}^{\infty}e^{-x^{2}}dx"),
        ('hat(ab) "for" abs(x) >= 0', r"\hat{ab}\text{for}|x|\geq0"),
        ("frac(a)(b) root(3)(x)", r"\frac{a}{b}\sqrt[3]{x}"),
        ("f:A->B", r"f:A\to B"),
        ("(a,b)", "(a,b)"),
        (")a", ")a"),
        ("a/", r"\frac{a}{}"),
        ("", ""),
    ],
)
def test_asciimath(source: str, tex: str) -> None:
    assert asciimath.to_tex(source) == tex


def test_asciimath_of_any_depth_ends() -> None:
    assert "x" in asciimath.to_tex("(" * 5000 + "x")
    assert "x" in asciimath.to_tex("sqrt " * 5000 + "x")


def test_signs() -> None:
    assert [symbol(sign) for sign in "αℕ𝔤𝒞≤x⟹ "] == ["\\alpha", "\\mathbb{N}", "\\mathfrak{g}", "\\mathcal{C}", "\\leq", "x", "\\Longrightarrow", " "]


def test_the_score_counts_formulas_in_order() -> None:
    assert score.written(r"so $ x $ is, \(y\) and \[ z \] for $5 and $6, $a$") == [("y", False), ("z", True), ("a", False)]
    assert score.in_order("abcde", "xbade") == 3
    assert score.in_order("abc", "") == score.in_order("", "abc") == 0
    assert score.in_order("aab", "aaab") == 3
