"""How every figure looks: colours, axes, panels, and rendering to bytes.

The report, the map of rules and the speed figures draw with this package. It imports no torch.
"""
