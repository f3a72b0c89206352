"""Several processes: what they exchange, and what keeps them equal."""
