"""Export: the only ONNX emitter, verification through the shipped file, manifests."""
