"""Images to learn from: synthetic people, any folder, one order of items, augmentation."""
