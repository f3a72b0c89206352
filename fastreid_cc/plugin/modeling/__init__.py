"""What fastreid builds from a config: meta-architectures, heads, losses."""
