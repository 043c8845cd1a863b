"""Published checkpoints: read without running anything in them, used to the last tensor."""
