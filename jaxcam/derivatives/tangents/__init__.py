"""Tangents along one element, kept only where they differ, and what operations do to them.

From what everything stands on to the table of rules:

- axes: where the small forms of a tangent are.
- terms: a tangent as a sum of terms, and how one of them is cut and stored.
- products: sums and products of tangents.
- step: one operation, as a rule sees it.
- rearrange: places moved about along an axis.
- sources: which places the operations move where.
- shapes: numbers laid out in another shape.
- sliding: a window of an operation's own, slid along an axis.
- convolution: what a convolution does to a tangent.
- pooling: what a sum or a maximum over windows does to it.
- matrices: what a product with a matrix does to it.
- rules: the table, a line for each operation.
"""
