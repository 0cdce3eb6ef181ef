"""Laws of the saliency stage."""
