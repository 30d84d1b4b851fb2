"""Membership inference: can somebody who sees the model's losses tell forgotten rows from rows it never saw?

tokens.py     what an attack sees of a row
scores.py     the attacks: from a row to a score that is higher for rows that were trained on
auc.py        how well scores tell two sets of rows apart, with a confidence interval
privleak.py   the same beside a retrained twin
classifier.py the paper's attack: a classifier on final representations
"""
