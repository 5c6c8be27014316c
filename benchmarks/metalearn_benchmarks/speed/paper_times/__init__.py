"""How long the methods of the paper's Figure 3.4 take: timed on images that are noise.

`noise` holds the images, `timing` times a method, and `__main__` times all of them and writes a file:

    python -m metalearn_benchmarks.speed.paper_times benchmarks/results/times.json
"""
