"""What meta-training is made of beside the loops: the meta-gradient, state, checkpoints, events, tasks."""
