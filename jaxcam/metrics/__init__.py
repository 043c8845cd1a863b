"""Is a map true? One metric, one file."""
