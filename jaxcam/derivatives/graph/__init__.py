"""A score as a graph, what it is at one point, and tangents carried through it.

In the order in which the derivatives of a score pass through them:

- flatten: the program as a list of operations, its values numbered.
- handwritten: derivatives that an author wrote, and whether tangents may follow them.
- singular: operations with infinite derivatives, and such that end a way.
- kinds: the list as a graph of a few kinds of node.
- partials: the partial derivatives of its nodes as programs, and which nodes bend.
- seen: places that nothing behind them sees, where what is infinite does no harm.
- still: places that nothing moves, where it does none either.
- point: all that does not depend on the element, by one pass forward and one backward.
- constants: numbers that are the same whatever the program is run on.
- carry: the tangents of every value along one element.
- elements: a function of one element, mapped over all of them.
- survey: what the tangents look like, and what that proves.

Beside them:

- culprit: which operation is not finite.
"""
