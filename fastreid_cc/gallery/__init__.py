"""Individuals by features: kept on disk or on a server, told apart from new ones, counted."""
