"""A classifier over HTTP; needs `cifar-onnx[serve]`."""
