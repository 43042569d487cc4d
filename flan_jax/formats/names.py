"""What a command line calls formats, kinds of numbers and packaged models: known without what reads and writes them."""

NATIVE, HUGGINGFACE, T5X, PEFT = FORMATS = ("flan_jax", "huggingface", "t5x", "peft")
DTYPES = ("float32", "bfloat16")  # of the weights in huggingface's format
PACKAGED = GEMMA, SMOLLM = ("gemma3-270m", "smollm2-135m-instruct")
