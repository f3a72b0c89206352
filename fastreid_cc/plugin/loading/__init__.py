"""Images on their way to the network: data sets, loaders of an epoch, extraction."""
