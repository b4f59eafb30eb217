"""Role bank (swap in place) and conversion from and to Hugging Face safetensors."""
