"""Layers and networks that need no toolkit: batch norms, fusion of domains, mean teacher."""
