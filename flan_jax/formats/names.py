"""Names of formats, dtypes and packaged models for command lines, which need no code that reads or writes them."""

NATIVE, HUGGINGFACE, T5X, PEFT = FORMATS = ("flan_jax", "huggingface", "t5x", "peft")
DTYPES = ("float32", "bfloat16")  # of the weights in the format of huggingface
PACKAGED = GEMMA, SMOLLM = ("gemma3-270m", "smollm2-135m-instruct")
MAX_POSITIONS = "max_positions"  # key in a history: the longest text that a model was made for, in tokens
