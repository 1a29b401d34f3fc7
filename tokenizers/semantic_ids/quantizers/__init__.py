"""Quantizers as PyTorch modules: they turn latents into codes and pass gradients back to the latents."""

from semantic_ids.quantizers.quantizer import Quantized, Quantizer
from semantic_ids.quantizers.scalar import BSQ, FSQ, LFQ
from semantic_ids.quantizers.vector import VectorQuantizer

__all__ = ["BSQ", "FSQ", "LFQ", "Quantized", "Quantizer", "VectorQuantizer"]
