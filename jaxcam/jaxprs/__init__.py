"""Programs as data.

In the order in which a score and its derivatives pass through them:

- interpret: jaxprs read, and run equation by equation.
- primitives: what is known of each operation of JAX, one row each.
- starts: poolings in the form that has a derivative.
- choices: maxima as choices, so that zero stays zero before a root.
- logarithms: ``log p`` without cancellation.
- relus: their backward pass, by another rule.
- dependence: what a program proves of itself.
- convolutions: their axes in a fast order.
- pullback: gradients, of float16 in single precision.
- merge: what is repeated, done once.
- cost: what one run needs.
- loops: what runs in chunks, as many at once as fit.
- shaken: rounding, told from results by Monte Carlo.
"""
