"""Each source of formulas (specification A2), one small page each: the TeX, whether it is displayed, and that nothing of it shows twice."""

from __future__ import annotations

import pytest

from headstart.curate.extract import Document, ExtractConfig, extract

MATHML = "<math{}><semantics><msup><mi>x</mi><mn>2</mn></msup><annotation encoding='application/x-tex'>x^2</annotation></semantics></math>"
SVG = "https://en.wikipedia.org/api/rest_v1/media/math/render/svg/abc"

X_LESS_Y = ("x<y", False, "mathjax")
SOURCES = {
    "annotation": (MATHML.format(""), "x^2", False, "mathml"),
    "annotation, display": (MATHML.format(" display=block"), "x^2", True, "mathml"),
    "alttext": ("<math alttext='a+b'><mi>a</mi><mo>+</mo><mi>b</mi></math>", "a+b", False, "mathml"),
    "data-latex on math": ("<math data-latex='a_1'><msub><mi>a</mi><mn>1</mn></msub></math>", "a_1", False, "mathml"),
    "converted": ("<math display=block><mfrac><mi>a</mi><mi>b</mi></mfrac></math>", r"\frac{a}{b}", True, "mathml-converted"),
    "annotation that is no TeX": (
        "<math><semantics><mi>q</mi><annotation encoding='StarMath 5.0'>wrong</annotation></semantics></math>",
        "q",
        False,
        "mathml-converted",
    ),
    "MediaWiki": (
        f"<span class=mwe-math-element><span class=mwe-math-mathml-inline style='display:none'>{MATHML.format('')}</span>"
        f"<img class=mwe-math-fallback-image-inline src={SVG} alt='{{\\displaystyle x^2}}'></span>",
        "x^2",
        False,
        "mediawiki",
    ),
    "MediaWiki, image only": (f"<span class=mwe-math-element><img src={SVG} alt='{{\\displaystyle x^2}}'></span>", "x^2", False, "mediawiki"),
    "MediaWiki, error": ("<strong class=texerror>Failed to parse: {\\displaystyle x^{2}}</strong>", r"\displaystyle x^{2}", False, "mediawiki"),
    "script": ("<span class=MathJax_Preview>x2</span><script type='math/tex'>x^2 < 3</script>", "x^2 < 3", False, "script"),
    "script, display": ("<script type='math/tex; mode=display'>% <![CDATA[\nx^2 %]]></script>", "x^2", True, "script"),
    "script, AsciiMath": ("<script type='math/asciimath'>sum_(i=1)^n i/2</script>", r"\sum_{i=1}^{n}\frac{i}{2}", False, "asciimath"),
    "script, MathML": (f"<script type='math/mml'>{MATHML.format('')}</script>", "x^2", False, "mathml"),
    "MathJax 2, rendered beside its script": (
        "<span class=MathJax_Preview></span><div class=MathJax_Display><span class=MathJax id=f1>x2</span></div>"
        "<script type='math/tex; mode=display' id=f1>x^2</script>",
        "x^2",
        True,
        "script",
    ),
    "MathJax 2, script gone": (
        f"<span class=MathJax_SVG><svg></svg><span class=MJX_Assistive_MathML>{MATHML.format('')}</span></span>",
        "x^2",
        False,
        "mathjax",
    ),
    "MathJax 2, data-mathml": ("<span class=MathJax data-mathml='<math><mi>x</mi><mo>&lt;</mo><mi>y</mi></math>'>x &lt; y</span>", *X_LESS_Y),
    "KaTeX": (
        f"<span class=katex><span class=katex-mathml>{MATHML.format('')}</span><span class=katex-html aria-hidden=true>x2</span></span>",
        "x^2",
        False,
        "katex",
    ),
    "KaTeX, display": (
        f"<span class=katex-display><span class=katex><span class=katex-mathml>{MATHML.format('')}</span>"
        "<span class=katex-html>x2</span></span></span>",
        "x^2",
        True,
        "katex",
    ),
    "data-expr": ("<span class=tex data-expr='\\sqrt 2'><b>√2</b></span>", r"\sqrt 2", False, "element"),
    "wp-katex": ("<span class='wp-katex-eq' data-display='true'>x^2</span>", "x^2", True, "element"),
    "math-container": ("<span class=math-container>$x^2$</span>", "x^2", False, "element"),
    "math-container, bare": ("<span class=math-container>x^2</span>", "x^2", True, "element"),
    "math-container, a block": ("<div class=math-container>x^2</div>", "x^2", True, "element"),
    "wp-katex, a block": ("<p class=wp-katex-eq data-display=true>x^2</p>", "x^2", True, "element"),
    "MathJax 4": (
        "<mjx-container jax=CHTML display=true><mjx-math data-latex='x^2'><mjx-mi data-latex=x>x</mjx-mi></mjx-math>"
        "<mjx-assistive-mml><math data-latex='x^2'><mi>x</mi></math></mjx-assistive-mml><img src=data:image/gif;base64,R0 title=x^2></mjx-container>",
        "x^2",
        True,
        "mathjax",
    ),
    "MathJax 4, without a copy": ("<mjx-container><mjx-math data-latex='x^2'><mjx-mi>x</mjx-mi></mjx-math></mjx-container>", "x^2", False, "mathjax"),
    "MathJax 2, display, script gone": (
        "<div class=MathJax_Display><span class=MathJax data-mathml='<math><mi>x</mi></math>'>x</span></div>",
        "x",
        True,
        "mathjax",
    ),
    "MathJax 3": (f"<mjx-container><svg></svg><mjx-assistive-mml>{MATHML.format('')}</mjx-assistive-mml></mjx-container>", "x^2", False, "mathjax"),
    "img.latex": ("<img class=latex src=a.png alt='x^2'>", "x^2", False, "image"),
    "img.latexdisplay": ("<img class=latexdisplay src=a.png alt='x^2'>", "x^2", True, "image"),
    "codecogs": ("<img src='https://latex.codecogs.com/gif.latex?\\dpi{150}&amp;space;\\frac{a}{b}%5E2'>", r"\frac{a}{b}^2", False, "image"),
    "mathtex": ("<img src='/cgi-bin/mathtex.cgi?a%2Bb'>", "a+b", False, "image"),
    "latex.php": ("<img src='https://s0.wp.com/latex.php?latex=x&bg=fff' alt='x_i'>", "x_i", False, "image"),
    "CK-12": ("<img class=x-ck12 src=a.png alt='x%5E2'>", "x^2", False, "image"),
    "imgmath": ("<img class=math src=a.png alt='\\mathbf{V}'>", r"\mathbf{V}", False, "image"),
    "imgmath, display": ("<div class=math><p><img src=a.png alt='x :=\n  y'></p></div>", "x := y", True, "image"),
    "Doxygen": ("<img class=formulaInl src=a.png alt='$ 0 &lt; x $'>", "0 < x", False, "image"),
    "Doxygen, display": ("<p class=formulaDsp><img class=formulaDsp src=a.png alt='\\[ x \\]'></p>", "x", True, "image"),
    "latex2html": ("<img src=img1.png alt='$x_1$'>", "x_1", False, "image"),
    "latex2html, display": ("<img src=img1.png alt='\\begin{displaymath}x\\end{displaymath}'>", "x", True, "image"),
    "span.math": (r"<span class='math notranslate'>\(x^2\)</span>", "x^2", False, "element"),
    "span.math, bare": ("<span class=math>x^2</span>", "x^2", False, "element"),
    "Pandoc, display": (r"<span class='math display'>\[x^2\]</span>", "x^2", True, "element"),
    "div.math": (r"<div class='math notranslate'>\[\begin{split}a\\b\end{split}\]</div>", r"\begin{split}a\\b\end{split}", True, "element"),
    "arithmatex": ("<div class=arithmatex>$$x$$</div>", "x", True, "element"),
    "process-math": (r"<span class=process-math>\(x\)</span>", "x", False, "element"),
    "d-math": ("<d-math block>x^2</d-math>", "x^2", True, "element"),
    "dt-math": ("<dt-math>x^2</dt-math>", "x^2", False, "element"),
}


def page(body: str, head: str = "") -> Document:
    return extract(f"<html><head>{head}</head><body><p>Before it,</p>{body}<p>and after it.</p></body></html>", "https://example.org/a/")


@pytest.mark.parametrize(("body", "tex", "display", "source"), list(SOURCES.values()), ids=list(SOURCES))
def test_each_source_gives_the_formula_once(body: str, tex: str, display: bool, source: str) -> None:
    document = page(body)
    assert [(formula.tex, formula.display, formula.source) for formula in document.formulas] == [(tex, display, source)]
    assert " ".join(document.text(formulas=False).split()) == "Before it, and after it."
    assert document.images == []


@pytest.mark.parametrize("element", ["<div data-expr='items.length > 0'>", "<p class=text data-expr='a_b'>", "<div class=math data-expr='a_b'>"])
def test_an_expression_of_a_script_is_no_formula_and_its_element_stays(element: str) -> None:
    """Only of class `tex` does data-expr hold TeX: the frameworks of web pages have attributes of that name too."""
    document = page(f"{element}what a <b>reader</b> sees,</div>")
    assert document.formulas == []
    assert "what a reader sees," in document.text()


@pytest.mark.parametrize(
    ("body", "tex", "display"),
    [
        (r"<p>so \(x\) is</p>", "x", False),
        (r"<p>so \[x\] is</p>", "x", True),
        (r"<p>so $$x$$ is</p>", "x", True),
        (r"<p>so $x$ is</p>", "x", False),
        ("<p>so [itex]x[/itex] is</p>", "x", False),
        ("<p>so [math]x[/math] is</p>", "x", False),
        ("<p>so [latex]x[/latex] is</p>", "x", False),
        ("<p>so [tex]x[/tex] is</p>", "x", True),
        (r"<p>so $a \text{ if $b$}$ is</p>", r"a \text{ if $b$}", False),
        (r"<p>so \begin{eqnarray*} x & = & 1 \end{eqnarray*} is</p>", r"\begin{eqnarray*} x & = & 1 \end{eqnarray*}", True),
        ("<p>so $$a<br>= b<!-- c -->$$ is</p>", "a = b", True),
        ("<li>so <span>$x$</span>th is</li>", "x", False),
        ("<li>so <span>$ x $</span>th is</li>", "x", False),
    ],
)
def test_delimiters_in_running_text(body: str, tex: str, display: bool) -> None:
    document = page(body, "<script src='https://cdn.example.org/MathJax.js'></script>")
    assert [(formula.tex, formula.display) for formula in document.formulas] == [(tex, display)]


def test_delimiters_count_only_on_pages_that_show_tex() -> None:
    assert page("<p>so $x$ is</p>").formulas == []
    assert [formula.tex for formula in page(r"<p>so $x$ is, with $\alpha$</p>").formulas] == ["x", r"\alpha"]


def test_delimiters_that_the_page_configures() -> None:
    config = """<script>MathJax = {tex: {inlineMath: [['@@', '@@'], ["\\\\(", "\\\\)"]], displayMath: [['[[', ']]']]}};</script>"""
    document = page(r"<p>so @@x@@ and [[y]] and \(z\)</p>", config)
    assert [(formula.tex, formula.display) for formula in document.formulas] == [("x", False), ("y", True), ("z", False)]
    katex = "<script>renderMathInElement(document.body, {delimiters: [{left: '%%', right: '%%', display: true}]})</script>"
    assert [(formula.tex, formula.display) for formula in page("<p>so %%x%% is</p>", katex).formulas] == [("x", True)]


def test_a_paragraph_of_prose_in_a_math_element_is_prose() -> None:
    document = page(r"<p class=process-math>Take \(x\) and \(y\) from it.</p><span class=math>Mathematics</span>")
    assert [formula.tex for formula in document.formulas] == ["x", "y"]
    assert "Take $x$ and $y$ from it." in document.text()
    assert extract("<p>See the category <span class=math>Mathematics</span> for more.</p>").formulas == []


def test_an_article_of_a_formula_class_is_an_article() -> None:
    article = f"<p>An article about {MATHML.format('')}.</p><p>It has <img src=cat.png alt='A cat'> in it.</p>"
    for name in ("mathjax", "katex", "math", "mwe-math-element"):
        document = page(f"<div class={name}>{article}</div>")
        assert [formula.tex for formula in document.formulas] == ["x^2"], name
        assert "An article about $x^2$." in document.text()
        assert [image.url for image in document.images] == ["https://example.org/a/cat.png"]


def test_an_image_whose_text_is_prose_is_an_image() -> None:
    document = page("<img class=math src=class.png alt='The mathematics class of last summer on the lawn'>")
    assert [image.url for image in document.images] == ["https://example.org/a/class.png"]
    assert document.counts["formula: mostly text"] == 1


def test_a_cell_and_an_item_keep_their_place() -> None:
    rows = r"<tr><td class=math>\(a\)</td><td class=math>\(b\)</td><td>c</td></tr>" * 2
    assert "$a$ | $b$ | c\n$a$ | $b$ | c" in page(f"<table>{rows}</table>").text()
    assert "- $x$" in page(r"<ul><li class=process-math>\(x\)</li></ul>").text()


def test_ignored_by_mathjax_is_not_searched() -> None:
    document = page(r"<div class=tex2jax_ignore>pay \(5\) <span class='math'>\(x\)</span></div><p>\(y\)</p>")
    assert [formula.tex for formula in document.formulas] == ["x", "y"]
    assert r"pay \(5\)" in document.text()


def test_hidden_elements_go_with_their_formulas_but_not_hidden_mathml() -> None:
    macros = r"<div style='display: none'>\(\newcommand{\R}{\mathbb R}\) \(h\)</div>"
    document = page(rf"{macros}<p>\(x\)</p><span style='display:none'>{MATHML.format('')}</span><p hidden>secret $y$</p>")
    assert [formula.tex for formula in document.formulas] == ["x", "x^2"]
    assert "secret" not in document.text()


def test_definitions_alone_are_no_formula_and_no_text() -> None:
    document = page(r"<p>\(\newcommand{\R}{\mathbb{R}} \def\x#1{y}\) so \(\R\)</p>")
    assert [formula.tex for formula in document.formulas] == [r"\R"]
    assert "newcommand" not in document.text()
    assert document.counts["formula: only macros"] == 1


def test_refused_formulas_stay_as_text_and_are_counted() -> None:
    sentence = "costs about ten dollars in most shops around here"
    document = page(rf"<p>it $x {sentence}$ now</p><p>$$ {'x+' * 3000} $$</p>", r"<script>mathjax \alpha</script>")
    assert document.formulas == []
    assert sentence in document.text()
    assert "x+x+x+" in document.text()
    assert (document.counts["formula: mostly text"], document.counts["formula: too long"]) == (1, 1)


def test_rendered_formulas_without_a_source_are_counted_and_not_text() -> None:
    document = page("<span class=katex><span class=katex-html>x2</span></span><mjx-container><svg></svg>y3</mjx-container>")
    assert document.formulas == []
    assert document.counts["formula: rendered without its source"] == 2
    assert "x2" not in document.text()
    assert "y3" not in document.text()


def test_formulas_side_by_side_and_behind_signs_can_be_read_again() -> None:
    document = page(r"<p>pay 3$<span class=math>\(a\)</span><span class=math>\(b\)</span> and c\<span class=math>\(d\)</span></p>")
    assert document.text().splitlines()[2] == r"pay 3\$ $a$ $b$ and c\ $d$"


def test_a_formula_right_behind_an_image_has_its_place() -> None:
    document = extract("<p>Before <img src='https://example.org/a.png'> <span class=math>$x$</span> after.</p>")
    assert document.text_list == ["Before", None, "$x$ after."]
    assert [(formula.entry, formula.start, formula.end) for formula in document.formulas] == [(2, 0, 3)]
    assert document.text(formulas=False) == "Before\n after."


def test_plain_text_takes_nothing_for_a_formula() -> None:
    config = ExtractConfig(math=False)
    body = f"<p>pay $5 and $x$</p>{MATHML.format('')}<span class=katex><span class=katex-mathml>a</span><span class=katex-html>x2</span></span>"
    document = extract(f"<body><p>A line of text.</p>{body}</body>", config=config)
    assert document.formulas == []
    assert "pay $5 and $x$" in document.text()
    assert "x^2" not in document.text(), "the annotation"
    assert document.text().endswith("x2x2"), "what the page shows, once each"
