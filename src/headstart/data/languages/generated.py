"""Random grammars of the form of the paper's, from a seed: no official file may be shipped, so ours are drawn by this rule.

`random_grammar` draws with numpy's `default_rng` in one fixed order of calls; equal arguments give equal grammars everywhere.
"""

from __future__ import annotations

import numpy as np

from headstart.data.languages.grammar import START, Grammar, Rule

SIZES = {
    "paper": {"words": 200, "levels": 4, "symbols": 10, "pairs": 20, "roots": 9, "lexicon": 100},
    "mini": {"words": 32, "levels": 3, "symbols": 6, "pairs": 6, "roots": 6, "lexicon": 8},
    "tiny": {"words": 16, "levels": 2, "symbols": 5, "pairs": 4, "roots": 5, "lexicon": 4},
}
"""paper: the sizes of the paper's grammar; mini: sentences of 2 to 8 words; tiny: of 2 to 4, for minutes on a CPU."""


def random_grammar(seed: int, *, words: int, levels: int, symbols: int, pairs: int, roots: int, lexicon: int) -> Grammar:
    """Start -> S1..Sn -> two symbols of level 1; a symbol of level l -> pairs of level l + 1, or one word; the last level -> words alone.

    Args:
        words: of the language, "0" .. ; some may have no rule.
        symbols: of each level.
        pairs: drawn for each symbol but those of the last level; equal ones are summed.
        lexicon: words of each symbol of the last level.
    """
    rng = np.random.default_rng(seed)
    rules = [Rule(START, (f"S{i + 1}",), False, float(p)) for i, p in enumerate(rng.dirichlet(np.full(roots, 4.0)))]
    for i, q in enumerate(rng.choice(symbols * symbols, size=roots, replace=False)):
        rules.append(Rule(f"S{i + 1}", _pair(1, int(q), symbols), False, 1.0))
    for level in range(1, levels + 1):
        for number in range(symbols):
            symbol = f"A{level}_{number}"
            if level < levels:
                drawn = rng.integers(0, symbols * symbols, size=pairs)
                weights = rng.random(pairs)
                of_word = float(rng.uniform(0.02 * pairs, 0.25 * pairs))
                word = int(rng.integers(words))
                total = float(weights.sum()) + of_word
                rules += [Rule(symbol, _pair(level + 1, int(q), symbols), False, float(w) / total) for q, w in zip(drawn, weights, strict=True)]
                rules.append(Rule(symbol, (str(word),), True, of_word / total))
            else:
                chosen = rng.choice(words, size=lexicon, replace=False)
                weights = rng.random(lexicon)
                rules += [Rule(symbol, (str(w),), True, float(p)) for w, p in zip(chosen, weights / weights.sum(), strict=True)]
    return Grammar(drop_unreachable(rules), [str(word) for word in range(words)])


def _pair(level: int, q: int, symbols: int) -> tuple[str, str]:
    return f"A{level}_{q // symbols}", f"A{level}_{q % symbols}"


def drop_unreachable(rules: list[Rule]) -> list[Rule]:
    """The rules of symbols that a sentence can have: a draw may leave one out."""
    reached, queue = {START}, [START]
    of_symbol: dict[str, list[Rule]] = {}
    for rule in rules:
        of_symbol.setdefault(rule.symbol, []).append(rule)
    while queue:
        for rule in of_symbol[queue.pop()]:
            for name in () if rule.is_word else rule.right:
                if name not in reached:
                    reached.add(name)
                    queue.append(name)
    return [rule for rule in rules if rule.symbol in reached]
