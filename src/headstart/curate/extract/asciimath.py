"""AsciiMath as LaTeX: the language of `<script type="math/asciimath">` (grammar: asciimath.org).

    simple     := constant | left expression right | unary simple | binary simple simple
    scripted   := simple [_ simple] [^ simple]
    expression := (scripted [/ scripted])*
"""

from __future__ import annotations

import re

from headstart.curate.extract.symbols import FUNCTIONS, join, pairs

MAX_DEPTH = 100
_SIGNS = r"""
+- \pm -+ \mp * \cdot ** \ast *** \star // / \\ \backslash xx \times |>< \ltimes ><| \rtimes -: \div @ \circ o+ \oplus ox \otimes o. \odot
sum \sum prod \prod ^^ \wedge ^^^ \bigwedge vv \vee vvv \bigvee nn \cap nnn \bigcap uu \cup uuu \bigcup != \neq lt < <= \leq le \leq gt > >= \geq
ge \geq -< \prec >- \succ -<= \preceq >-= \succeq in \in !in \notin sub \subset sup \supset sube \subseteq supe \supseteq -= \equiv ~= \cong
~~ \approx ~ \sim prop \propto not \neg => \implies <=> \iff AA \forall EE \exists _|_ \bot TT \top |-- \vdash |== \models int \int oint \oint
del \partial grad \nabla O/ \emptyset oo \infty aleph \aleph :. \therefore :' \because ... \ldots cdots \cdots vdots \vdots ddots \ddots
quad \quad qquad \qquad diamond \diamond square \square |__ \lfloor __| \rfloor |~ \lceil ~| \rceil CC \mathbb{C} NN \mathbb{N} QQ \mathbb{Q}
RR \mathbb{R} ZZ \mathbb{Z} if \text{if} and \text{and} or \text{or} uarr \uparrow darr \downarrow rarr \rightarrow -> \to >-> \rightarrowtail
->> \twoheadrightarrow |-> \mapsto larr \leftarrow harr \leftrightarrow rArr \Rightarrow lArr \Leftarrow hArr \Leftrightarrow dx dx dy dy dz dz
dt dt lcm \operatorname{lcm} lub \operatorname{lub} glb \operatorname{glb} mod \bmod # \# % \% & \&
"""
CONSTANTS = pairs(_SIGNS)
_GREEK = """
alpha beta chi delta Delta epsilon varepsilon eta gamma Gamma iota kappa lambda Lambda mu nu omega Omega phi varphi Phi pi Pi psi Psi rho sigma
Sigma tau  theta vartheta Theta upsilon xi Xi zeta
"""
CONSTANTS |= {letter: "\\" + letter for letter in _GREEK.split()}
CONSTANTS |= {name: "\\" + name for name in FUNCTIONS}
UNARY = {
    "sqrt": "\\sqrt",
    "hat": "\\hat",
    "bar": "\\overline",
    "overline": "\\overline",
    "vec": "\\vec",
    "dot": "\\dot",
    "ddot": "\\ddot",
    "tilde": "\\tilde",
    "ul": "\\underline",
    "underline": "\\underline",
    "ubrace": "\\underbrace",
    "obrace": "\\overbrace",
    "cancel": "\\cancel",
    "bb": "\\mathbf",
    "bbb": "\\mathbb",
    "cc": "\\mathcal",
    "tt": "\\mathtt",
    "fr": "\\mathfrak",
    "sf": "\\mathsf",
}
ENCLOSING = {"abs": ("|", "|"), "norm": ("\\|", "\\|"), "floor": ("\\lfloor ", "\\rfloor "), "ceil": ("\\lceil ", "\\rceil ")}
BINARY = {
    "frac": "\\frac{%s}{%s}",
    "root": "\\sqrt[%s]{%s}",
    "stackrel": "\\stackrel{%s}{%s}",
    "overset": "\\overset{%s}{%s}",
    "underset": "\\underset{%s}{%s}",
}
LEFT = {"(": "(", "[": "[", "{": "\\{", "(:": "\\langle ", "<<": "\\langle ", "{:": "."}
RIGHT = {")": ")", "]": "]", "}": "\\}", ":)": "\\rangle ", ">>": "\\rangle ", ":}": "."}
_NAMES = sorted({*CONSTANTS, *UNARY, *BINARY, *ENCLOSING, *LEFT, *RIGHT, "_", "^", "/", "|", ","}, key=len, reverse=True)
TOKEN = re.compile(r'\s+|"[^"]*"|text\([^)]*\)|\d+(?:\.\d+)?|' + "|".join(map(re.escape, _NAMES)) + r"|\S")


def to_tex(source: str) -> str:
    """The LaTeX of an AsciiMath formula. Whatever is no AsciiMath is kept sign by sign."""
    return _Parser([token for token in TOKEN.findall(source) if not token.isspace()]).expression(0, "")[0]


class _Parser:
    """Recursive descent over tokens; nothing fails, as in a browser: what does not fit stands for itself."""

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self.at += 1
        return token

    def expression(self, depth: int, end: str) -> tuple[str, list[str]]:
        """TeX up to a right bracket (or `end`), and its parts between commas."""
        parts: list[list[str]] = [[]]
        while (token := self.peek()) and not (depth and (token in RIGHT or token == end)):
            if token == ",":
                self.next()
                parts.append([])
                continue
            tex = self.scripted(depth)
            if self.peek() == "/":
                self.next()
                tex = f"\\frac{{{_bare(tex)}}}{{{_bare(self.scripted(depth))}}}"
            parts[-1].append(tex)
        joined = [join(part) for part in parts]
        return ",".join(joined), joined

    def scripted(self, depth: int) -> str:
        tex = self.simple(depth)
        for sign in ("_", "^"):
            if self.peek() == sign:
                self.next()
                tex += f"{sign}{{{_bare(self.simple(depth))}}}"
        return tex

    def simple(self, depth: int) -> str:
        token = self.next()
        if depth > MAX_DEPTH or not token:
            return token
        if token in LEFT or (token == "|" and "|" in self.tokens[self.at : self.at + 50]):
            return self.bracketed(token, depth)
        if token[0] == '"' or token.startswith("text("):
            return f"\\text{{{token[1:-1] if token[0] == chr(34) else token[5:-1]}}}"
        if token in UNARY:
            return f"{UNARY[token]}{{{_bare(self.simple(depth + 1))}}}"
        if token in ENCLOSING:
            left, right = ENCLOSING[token]
            return f"{left}{_bare(self.simple(depth + 1))}{right}"
        if token in BINARY:
            first = _bare(self.simple(depth + 1))
            return BINARY[token] % (first, _bare(self.simple(depth + 1)))
        return CONSTANTS.get(token, "\\}" if token == "}" else token)

    def bracketed(self, left: str, depth: int) -> str:
        inner, parts = self.expression(depth + 1, "|" if left == "|" else "")
        right = self.next()
        opening, closing = LEFT.get(left, left), RIGHT.get(right, right) or "."
        rows = [_row(part) for part in parts]
        if left in ("(", "[", "{", "|") and len(parts) > 1 and all(row is not None for row in rows):
            inner = "\\begin{matrix}" + " \\\\ ".join(" & ".join(row or []) for row in rows) + "\\end{matrix}"
        if opening == "." or closing == "." or "\\begin" in inner or "\\frac" in inner:
            return f"\\left{opening.strip()} {inner}\\right{closing.strip()}" if opening[-1:].isalpha() else f"\\left{opening}{inner}\\right{closing}"
        return f"{opening}{inner}{closing}"


def _row(part: str) -> list[str] | None:
    """The cells of a matrix row `(a,b)` or `[a,b]`; None when it is no row."""
    if len(part) < 2 or part[0] + part[-1] not in ("()", "[]"):
        return None
    depth, cells, start = 0, [], 1
    for index, sign in enumerate(part):
        depth += (sign in "([{") - (sign in ")]}")
        if depth == 0 and index < len(part) - 1:
            return None
        if sign == "," and depth == 1:
            cells.append(part[start:index])
            start = index + 1
    return [*cells, part[start:-1]]


def _bare(tex: str) -> str:
    """An argument without the round or curly brackets that only hold it together."""
    for left, right in (("(", ")"), ("\\{", "\\}")):
        if tex.startswith(left) and tex.endswith(right):
            inner, depth = tex[len(left) : -len(right)], 0
            for sign in inner:
                depth += (sign == left[-1]) - (sign == right[-1])
                if depth < 0:
                    return tex
            return inner
    for left, right in (("\\left(", "\\right)"),):
        if tex.startswith(left) and tex.endswith(right) and tex.count("\\left") == 1:
            return tex[len(left) : -len(right)]
    return tex
