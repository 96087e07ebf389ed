"""A model as one ONNX file, checked against its network."""
