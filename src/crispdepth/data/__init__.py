"""Data sets and made-up scenes: samples out. Knows no model."""
