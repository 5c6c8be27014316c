"""Task families: sine regression, few-shot image classification, and minibatches for pretraining."""
