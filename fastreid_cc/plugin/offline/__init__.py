"""Finished runs and published files, for the commands; training never imports it."""
