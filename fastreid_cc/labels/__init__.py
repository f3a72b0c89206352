"""Labels: their numbers, what is said of them, and which classes a batch cannot tell apart."""
