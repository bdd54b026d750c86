import os

# Whatever library opens a file for us, in this process or its workers: tensors and plain data only, no pickled code.
os.environ.setdefault("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "1")
