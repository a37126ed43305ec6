"""Judging a classifier by labelled pictures: metrics with intervals, slices, robustness, comparison, and a report.

What is here needs the extra: `pip install "cifar-onnx[evaluate]"`.
"""
