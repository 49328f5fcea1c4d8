"""Chapter 11: the same models in a quarter and an eighth of the bytes.

Read `formats` (int8, NF4, double quantization), `weights` (codes that multiply), `layers` (any module, quantized).
"""
