"""Unicode signs of mathematics as LaTeX: signs and commands side by side, accents, functions, alphabets."""

from __future__ import annotations

import unicodedata
from string import ascii_letters

_COMMANDS = """
α alpha β beta γ gamma δ delta ε varepsilon ϵ epsilon ζ zeta η eta θ theta ϑ vartheta ι iota κ kappa ϰ varkappa λ lambda μ mu µ mu ν nu ξ xi π pi
ϖ varpi ρ rho ϱ varrho σ sigma ς varsigma τ tau υ upsilon φ varphi ϕ phi χ chi ψ psi ω omega Γ Gamma Δ Delta ∆ Delta Θ Theta Λ Lambda Ξ Xi Π Pi
Σ Sigma Υ Upsilon Φ Phi Ψ Psi Ω Omega Ω Omega ∂ partial ∇ nabla ℏ hbar ℓ ell ℘ wp ℜ Re ℑ Im ℵ aleph ı imath ȷ jmath ∅ emptyset ∞ infty ∑ sum
∏ prod ∐ coprod ∫ int ∬ iint ∭ iiint ∮ oint ⋃ bigcup ⋂ bigcap ⋁ bigvee ⋀ bigwedge ⨁ bigoplus ⨂ bigotimes ⨀ bigodot ⨆ bigsqcup ± pm ∓ mp × times
÷ div · cdot ⋅ cdot ∙ bullet • bullet ∘ circ ∗ ast ⋆ star † dagger ‡ ddagger ⊕ oplus ⊖ ominus ⊗ otimes ⊘ oslash ⊙ odot ∧ wedge ∨ vee ∩ cap ∪ cup
⊎ uplus ⊓ sqcap ⊔ sqcup ∖ setminus ≀ wr ⋄ diamond △ triangle ▽ triangledown ◁ triangleleft ▷ triangleright □ square ◻ square ■ blacksquare ≤ leq
≥ geq ⩽ leqslant ⩾ geqslant ≪ ll ≫ gg ≠ neq ≡ equiv ≈ approx ≅ cong ∼ sim ≃ simeq ≍ asymp ≐ doteq ∝ propto ≺ prec ≻ succ ⪯ preceq ⪰ succeq ∈ in
∉ notin ∋ ni ∊ in ⊂ subset ⊃ supset ⊆ subseteq ⊇ supseteq ⊊ subsetneq ⊋ supsetneq ⊏ sqsubset ⊐ sqsupset ⊑ sqsubseteq ⊒ sqsupseteq ∣ mid ∤ nmid
∥ parallel ∦ nparallel ⊥ perp ⊢ vdash ⊣ dashv ⊨ models ⊤ top ⊲ lhd ⊳ rhd ∀ forall ∃ exists ∄ nexists ¬ neg ∴ therefore ∵ because ← leftarrow
→ rightarrow ↑ uparrow ↓ downarrow ↔ leftrightarrow ↕ updownarrow ↦ mapsto ⟼ longmapsto ↪ hookrightarrow ↩ hookleftarrow ↗ nearrow ↘ searrow
↙ swarrow ↖ nwarrow ⇐ Leftarrow ⇒ Rightarrow ⇔ Leftrightarrow ⇑ Uparrow ⇓ Downarrow ⟵ longleftarrow ⟶ longrightarrow ⟷ longleftrightarrow
⟸ Longleftarrow ⟹ Longrightarrow ⟺ iff ⇌ rightleftharpoons ⇀ rightharpoonup ⇁ rightharpoondown ↼ leftharpoonup ↽ leftharpoondown
⇝ rightsquigarrow … ldots ⋯ cdots ⋮ vdots ⋱ ddots ∠ angle ∡ measuredangle √ surd ′ prime ° degree ♠ spadesuit ♡ heartsuit ♢ diamondsuit
♣ clubsuit ♭ flat ♮ natural ♯ sharp ⟨ langle ⟩ rangle 〈 langle 〉 rangle ⌊ lfloor ⌋ rfloor ⌈ lceil ⌉ rceil ‖ Vert ⟦ llbracket ⟧ rrbracket
★ bigstar ✓ checkmark ⊞ boxplus ⊠ boxtimes
"""


def pairs(table: str) -> dict[str, str]:
    """A table written as words, each second one belonging to the one before it."""
    words = table.split()
    return dict(zip(words[::2], words[1::2], strict=True))


SYMBOLS: dict[str, str] = {sign: "\\" + command for sign, command in pairs(_COMMANDS).items()}
SYMBOLS |= {
    **dict.fromkeys("\u2061\u2062\u2063\u2064\u200b\u200c\u200d\u2060\ufeff", ""),  # function application, invisible times, comma, plus; joiners
    **dict.fromkeys("\u2212\u2010\u2013\ufe63\uff0d", "-"),
    **dict.fromkeys("\u00a0\u2009\u200a\u2003\u2002\u205f", " "),
    **{sign: "\\" + sign for sign in "#%&_{}$"},
    "\\": "\\backslash",
    "^": "\\hat{}",
    "~": "\\sim",
    "″": "''",
    "‴": "'''",
    "⁗": "''''",
    "’": "'",
    "≔": ":=",
    "∶": ":",
    "∕": "/",
    "⁄": "/",
    "∷": "::",
    "ϕ": "\\phi",
}

_FUNCTIONS = """
arccos arcsin arctan arg cos cosh cot coth csc deg det dim exp gcd hom inf ker lg lim liminf limsup ln log max min Pr sec sin sinh sup tan tanh
"""
FUNCTIONS = frozenset(_FUNCTIONS.split())
OVER = {
    **dict.fromkeys("^ˆ\u0302", "\\hat"),
    **dict.fromkeys("¯‾ˉ\u0304\u0305", "\\bar"),
    "_": "\\bar",
    **dict.fromkeys("→⃗⇀\u20d7", "\\vec"),
    **dict.fromkeys("˙\u0307.", "\\dot"),
    **dict.fromkeys("¨\u0308", "\\ddot"),
    **dict.fromkeys("~˜∼\u0303", "\\tilde"),
    **dict.fromkeys("ˇ\u030c", "\\check"),
    **dict.fromkeys("˘\u0306", "\\breve"),
    **dict.fromkeys("´\u0301", "\\acute"),
    **dict.fromkeys("`\u0300", "\\grave"),
    "⏞": "\\overbrace",
    "︷": "\\overbrace",
    "←": "\\overleftarrow",
}
"""Accents of `mover`. A bar over more than one sign is an \\overline, and so on: `WIDE`."""
WIDE = {"\\bar": "\\overline", "\\vec": "\\overrightarrow", "\\hat": "\\widehat", "\\tilde": "\\widetilde"}
UNDER = {**dict.fromkeys("_¯‾\u0332\u0331", "\\underline"), "⏟": "\\underbrace", "︸": "\\underbrace"}
VARIANTS = {
    "bold": "\\mathbf",
    "bold-italic": "\\boldsymbol",
    "double-struck": "\\mathbb",
    "script": "\\mathcal",
    "bold-script": "\\mathcal",
    "fraktur": "\\mathfrak",
    "bold-fraktur": "\\mathfrak",
    "sans-serif": "\\mathsf",
    "monospace": "\\mathtt",
    "normal": "\\mathrm",
}
_ALPHABETS = (
    ("MATHEMATICAL BOLD ITALIC", "\\boldsymbol"),
    ("MATHEMATICAL BOLD SCRIPT", "\\mathcal"),
    ("MATHEMATICAL BOLD FRAKTUR", "\\mathfrak"),
    ("MATHEMATICAL BOLD", "\\mathbf"),
    ("MATHEMATICAL DOUBLE-STRUCK", "\\mathbb"),
    ("DOUBLE-STRUCK CAPITAL", "\\mathbb"),
    ("MATHEMATICAL SCRIPT", "\\mathcal"),
    ("SCRIPT CAPITAL", "\\mathcal"),
    ("MATHEMATICAL FRAKTUR", "\\mathfrak"),
    ("BLACK-LETTER CAPITAL", "\\mathfrak"),
    ("MATHEMATICAL SANS-SERIF", "\\mathsf"),
    ("MATHEMATICAL MONOSPACE", "\\mathtt"),
)


LONGEST_COMMAND = 24


def symbol(sign: str) -> str:
    """One character as LaTeX: a command, a letter in its alphabet (𝐱 -> \\mathbf{x}), or itself."""
    known = SYMBOLS.get(sign)
    if known is not None or sign.isascii():
        return sign if known is None else known
    plain = unicodedata.normalize("NFKC", sign)
    if plain == sign or len(plain) != 1:
        return sign
    name = unicodedata.name(sign, "")
    letter = SYMBOLS.get(plain, plain)
    return next((f"{command}{{{letter}}}" for start, command in _ALPHABETS if name.startswith(start)), letter)


def join(parts: list[str]) -> str:
    """Pieces of TeX one after another; a blank where a command would run into a letter."""
    out = ""
    for part in parts:
        if out and part and part[0].isalpha() and part[0].isascii() and _ends_in_command(out):
            out += " "
        out += part
    return out


def _ends_in_command(tex: str) -> bool:
    end = tex[-LONGEST_COMMAND:]
    word = end.rstrip(ascii_letters)
    return word != end and word.endswith("\\")
