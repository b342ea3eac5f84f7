"""Pack vLLM for a machine with an H100 or H200 that has torch and nothing else, and can fetch nothing.

    python -m benchmarks.carry_vllm FILE.tar.xz [--python 3.12]        here, where packages can be downloaded
    mkdir vllm && tar xJf FILE.tar.xz -C vllm                          there
    export PYTHONPATH=$PWD/vllm/site:$PWD/vllm/deps VLLM_USE_FLASHINFER_SAMPLER=0

About 48 MB of the 327 MB that the wheel has: what a dense bfloat16 model does not use is left out, and so is the code
for other GPUs in the libraries that stay. A library's GPU code lies in containers, one entry per architecture, of which
the driver takes the one that fits; the others' content is overwritten with zeros, which compress to nothing, and their
headers stay. The packages that vLLM imports come in the versions that are installed here.
"""

import argparse
import lzma
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

WHEEL = "vllm==0.32.0"
UNUSED = (
    "vllm/third_party/deep_gemm", "vllm/third_party/fmha_sm100", "vllm/kernels/helion/configs", "vllm/vllm-rs",
    "vllm/_flashmla_C.abi3.so", "vllm/_flashkda_C.abi3.so", "vllm/_deepselect_C.abi3.so", "vllm/_qutlass_C.abi3.so",
    "vllm/_moe_C_stable_libtorch.abi3.so", "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
)  # fmt: skip
PACKAGES = (
    "apache-tvm-ffi", "annotated-types", "astor", "blake3", "cachetools", "cbor2", "compressed-tensors", "depyf",
    "dill", "fastapi", "ijson", "interegular", "jiter", "jsonschema", "jsonschema-specifications", "lark", "llguidance",
    "lm-format-enforcer", "loguru", "mcp", "mistral-common", "msgspec", "openai", "opentelemetry-api",
    "opentelemetry-sdk", "opentelemetry-semantic-conventions", "oss-harmony", "outlines-core", "partial-json-parser",
    "prometheus-fastapi-instrumentator", "pybase64", "pydantic", "pydantic-core", "python-json-logger", "pyzmq",
    "referencing", "rpds-py", "setproctitle", "sniffio", "starlette", "tiktoken", "typing-inspection", "watchfiles",
    "xgrammar", "httpx2", "httpcore2", "zlib-ng",
)  # fmt: skip
"""What vLLM imports and an environment with torch and transformers lacks."""
ARCHITECTURE = 90
CONTAINER = struct.Struct("<IHHQ")
"""Magic number, version, size of this header, size of the entries (NVIDIA's fatbinary.h)."""
ENTRY = struct.Struct("<HHIQ12xI")
"""Kind (1 PTX, 2 machine code), version, size of this header, size of the content; at byte 28 the architecture."""
MAGIC = struct.pack("<I", 0xBA55ED50)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, metavar="FILE.tar.xz")
    parser.add_argument("--python", default="3.12", help="the version of the other machine's Python")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        site, deps = Path(scratch, "site"), Path(scratch, "deps")
        install([WHEEL], site, options.python)
        install([f"{name}=={version(name)}" for name in PACKAGES], deps, options.python)
        for name in UNUSED:
            shutil.rmtree(site / name) if (site / name).is_dir() else (site / name).unlink()
        shutil.rmtree(deps / "mistral_common" / "data", ignore_errors=True)
        for library in site.rglob("*.so"):
            kept, cleared = clear_other_architectures(library)
            if cleared:
                print(f"{library.name}: {kept >> 20} MiB of GPU code kept, {cleared >> 20} MiB cleared", flush=True)
        with lzma.open(options.file, "wb", preset=9) as packed, tarfile.open(fileobj=packed, mode="w|") as archive:
            archive.add(site, "site")
            archive.add(deps, "deps")
    print(f"{options.file}: {options.file.stat().st_size / 1e6:.1f} MB")


def install(requirements: list[str], target: Path, python: str) -> None:
    """Unpack wheels for Linux on x86-64 into `target`, without what they need. Any glibc up to 2.34 will do."""
    platforms = [f"--platform=manylinux_2_{minor}_x86_64" for minor in (34, 31, 28, 27, 24, 17, 5)]
    platforms += ["--platform=manylinux2014_x86_64", "--platform=manylinux1_x86_64"]
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--only-binary=:all:", "--no-compile"]
    subprocess.run(
        [*command, *platforms, f"--python-version={python}", "--implementation=cp", "--target", target, *requirements],
        check=True,
    )


def clear_other_architectures(library: Path) -> tuple[int, int]:
    """Overwrite the GPU code that an `ARCHITECTURE` has no use for; returns the bytes kept and cleared."""
    content = bytearray(library.read_bytes())
    kept = cleared = 0
    at = content.find(MAGIC)
    while at >= 0:
        _, _, header, size = CONTAINER.unpack_from(content, at)
        end = at + header + size
        if header == CONTAINER.size and end <= len(content):
            found = entries(content, at + header, end)
            ours = any(kind == 2 and architecture == ARCHITECTURE for kind, architecture, _, _ in found)
            for kind, architecture, start, length in found:
                # Machine code runs on no other generation; PTX of an older one is compiled, if there is nothing else.
                used = (kind == 2 and architecture == ARCHITECTURE) or (
                    kind == 1 and not ours and architecture <= ARCHITECTURE
                )
                kept, cleared = kept + length * used, cleared + length * (not used)
                if not used:
                    content[start : start + length] = bytes(length)
        else:
            end = at + len(MAGIC)
        at = content.find(MAGIC, end)
    if cleared:
        library.write_bytes(content)
    return kept, cleared


def entries(content: bytearray, at: int, end: int) -> list[tuple[int, int, int, int]]:
    """(kind, architecture, start, length) of each entry of a container."""
    found = []
    while at + 64 <= end:
        kind, _, header, length, architecture = ENTRY.unpack_from(content, at)
        found.append((kind, architecture, at + header, length))
        at += header + length
    return found


if __name__ == "__main__":
    main()
