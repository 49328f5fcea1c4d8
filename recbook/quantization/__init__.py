"""Chapter 11: the same models in a quarter and an eighth of the bytes.

Read `formats` (int8, NF4 and double quantization, tensors in and tensors out), `weights` (quantized weights that
multiply and pass gradients), and `layers` (`quantize`: the linear layers and embeddings of any module).
"""
