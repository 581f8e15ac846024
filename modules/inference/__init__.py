"""The module server: one model behind HTTP, as Azure ML v1 entry scripts expect it.

It runs inside a module image, so it knows no other part of Rimward: only the standard library,
granian, numpy and (when a model is served without a script, or a script asks) onnxruntime.
"""

SERVER = "rimward-inference"
VERSION = "0.1.0"
