"""The ways to the derivatives of a score, one file each; `derivatives.auto` chooses.

In the order in which ``auto`` asks them:

- absent: no derivative, for methods of activations alone.
- gradient: the first derivative alone.
- along: its derivatives along the activations themselves, by Hessian-vector products.
- affine: piecewise affine, so that the first derivative is all there is.
- peeled: piecewise affine up to a narrow waist.
- adjoint: tangents up to the last bend, and one backward pass for all elements.
- directional: nested differentiation along one element at a time; serves every score.

Not exact, and only taken by name:

- exponential: the papers' closed form, ``D_k = Y g^k``.
- power: what public code computes, ``D_k = g^k``.
"""
