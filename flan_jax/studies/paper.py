"""What the paper's 137B model has, in percent, to stand beside ours. Wei et al. 2022; GPT-3 as the paper prints it."""

from __future__ import annotations

MODEL = "137B, the paper's"

# Section 3 and appendix: mean over the cluster's datasets, zero-shot: GPT-3 175B, LaMDA-PT 137B where known, FLAN 137B.
ZERO_SHOT = {
    "nli": {"GPT-3 175B": 42.9, "FLAN 137B": 56.2},
    "reading_comprehension": {"GPT-3 175B": 63.7, "FLAN 137B": 77.4},
    "closed_book_qa": {"GPT-3 175B": 49.8, "FLAN 137B": 56.6},
}

# Figure 6: mean over NLI, closed-book QA and commonsense, by the number of clusters that are tuned on.
NUMBER_OF_CLUSTERS = {1: 49.9, 2: 55.0, 3: 59.3, 4: 59.2, 5: 60.8, 6: 61.9, 7: 63.5}

# Figure 8: mean over NLI, reading comprehension, closed-book QA and translation: (tuned with, evaluated with).
ROLE_OF_INSTRUCTIONS = {
    ("instructions", "instructions"): 55.2,
    ("no_template", "instructions"): 37.3,
    ("dataset_name", "instructions"): 46.6,
    ("dataset_name", "dataset_name"): 47.0,
}

# Figure 9, read off it: FLAN zero-shot and few-shot.
FEW_SHOT = {
    "nli": (54.7, 59.3),
    "closed_book_qa": (53.7, 57.2),
    "commonsense": (80.0, 80.8),
    "coreference": (63.8, 67.4),
    "translation": (31.0, 33.0),
    "structure_to_text": (39.2, 49.4),
}

# Figure 10: mean on SuperGLUE by a soft prompt of 10: (LaMDA-PT, FLAN), with 32 training examples and with all.
PROMPT_TUNING = {"32": (63.8, 78.1), "all": (79.1, 87.4)}
