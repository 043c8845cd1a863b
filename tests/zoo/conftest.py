"""The references need torch: tests of the mark ``parity`` import them, the collection must not."""

collect_ignore = ["references.py"]
