"""The logarithm of a probability, read from the program and taken without cancellation.

In the order in which a program passes through them:

- rewriting: which logarithms, and elements of them, are computed anew.
- origins: a program read forward, with every value kept beside what made it.
- readings: what a value says about its own logarithm.
- logsums: ``y - log sum e^y``, a softmax that was never taken.
- picks: elements picked before a logarithm, not after it.
- probabilities: the formulas in which nothing cancels.
"""
