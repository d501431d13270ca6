"""The D-CPT law (arXiv 2406.01375): the loss of a continued model from its size N, its tokens D and the share r of a corpus in the mixture.

    forms.py    the law and its rivals as sums of terms, with their slopes
    solve.py    the robust fit: start grid, Huber objective, all starts at once
    refit.py    how sure it is: bootstrap over runs, cross-validation
    rollout.py  what it errs by where nothing was measured
    answers.py  which ratio, which size, how many tokens
    domains.py  one law for several domains (K3)
    points.py   the table of losses, and what is wrong with it
    plan.py     arithmetic of a plan: epochs, the limit under an annealed rate
    files.py    law.json, predictions.csv
    figures.py  loss against r

Two laws are fitted, which share nothing: the domain loss over r_d, the general loss over r_g = 1 - r_d. To take one for the other is the commonest
mistake: r is always the share of the corpus **whose loss is predicted**.
"""
