"""Few-shot image classification: datasets, their split lists, and the episodes drawn from them."""
