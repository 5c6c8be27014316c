"""Base-learners for images: Conv-4 and ResNet-12, and the layers that they are made of."""
