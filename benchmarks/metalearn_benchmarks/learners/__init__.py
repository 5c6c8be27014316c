"""Base-learners: the perceptron for sine regression, image classifiers, and heads adapted alone."""
