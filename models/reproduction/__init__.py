"""Zhang et al. 2024, "Ultrasonic Image's Annotation Removal: A Self-supervised Noise2Noise Approach", done again.

`python -m models tables` trains every cell of the paper's Tables I to VIII, with the paper's own pipeline and with its
defects corrected, and writes the tables, curves and pictures.
"""
