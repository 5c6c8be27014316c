"""Image datasets: prepared on disk once, sampled as few-shot tasks."""
