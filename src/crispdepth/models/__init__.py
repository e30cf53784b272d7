"""Networks and filters: tensors in, tensors out."""
