"""One interface over a network in torch and an ONNX file; views; evaluation."""
