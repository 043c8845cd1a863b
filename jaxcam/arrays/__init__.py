"""Arrays: how they come in, how precise they are, and where they lie.

- door: whatever holds numbers becomes an array of JAX.
- inputs: what a network is called on, one array or several of one batch.
- outputs: what a network gives, and what activations and scores must be.
- running: what a network, or another function of the user's, raised, in our words.
- keys: random numbers by number.
- precision: half in, single out.
- memory: how much there is.
- meshes: the user's own meshes of devices.
"""
