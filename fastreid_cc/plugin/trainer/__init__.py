"""What runs while fastreid trains: the wrapped trainer and its hooks."""
