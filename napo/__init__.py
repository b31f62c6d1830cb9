"""napo: a reproduction kit for Noise-Aware Preference Optimization (Zhang et al., CVPR 2025)."""

__version__ = "0.1.0"
