"""One interface over a network in torch and an ONNX file; views of an image; evaluation."""
