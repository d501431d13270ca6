"""Languages whose statistics are known exactly: what a perfect model says of each hidden word, and so the least loss that any model can reach.

    grammar.py    rules with probabilities; checked; JSON and NLTK's text form, both ways
    generated.py  the random grammars of docs/methods/implicit_bias.md: pcfg-paper, pcfg-mini, pcfg-tiny
    pcfg.py       sentences, inside and outside passes, labels
    hmm.py        hidden Markov chains: forward and backward passes, labels
    language.py   what all of them can say; `find_language("builtin:pcfg-mini")`
    files.py      corpora, labelled tasks and grammars as files for other programs

`headstart pretrain mlm --data builtin:pcfg-mini` trains any method on texts on one; `headstart measure loss-exact RUN` says how far it is from the
optimum. All of this is numpy in float64.
"""
