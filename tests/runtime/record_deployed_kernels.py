"""Record which kernels ONNX Runtime runs for some architectures, into deployed_kernels.json beside this file.

    python tests/runtime/record_deployed_kernels.py

Adds those for the blocks of this processor, and for none, to what other processors recorded; run it on a
processor with AVX-512 and on one without, or once with LD_PRELOAD set to what `without_avx512.c` compiles to.
`test_deployed_elsewhere.py` compares them, on every processor.
"""

from __future__ import annotations

import json
from pathlib import Path

from ort_law import running_kernels
from random_architectures import draw_architecture

from dsonas_hw.architecture.onnx import model_bytes
from dsonas_hw.runtime.ort.session import import_onnxruntime
from dsonas_hw.runtime.ort_cpu.in_situ import native_block_size

RECORD = Path(__file__).with_name("deployed_kernels.json")
NETWORKS = (1, 9, 20, 58, 111, 164)
"""Both stems; widths 2 to 56; the paper's operations, and all of them."""


def main() -> None:
    record = json.loads(RECORD.read_text()) if RECORD.exists() else {}
    for index in NETWORKS:
        architecture, batch_size = draw_architecture(index)
        network = record.setdefault(
            str(index), {"architecture": architecture.to_json(), "batch_size": batch_size}
        )
        network["onnxruntime"] = import_onnxruntime().__version__
        kernels = network.setdefault("kernels", {})
        model = model_bytes(architecture, batch_size=batch_size, seed=index)
        for block_size in {native_block_size(), 0}:
            found = running_kernels(model, batch_size=batch_size, with_blocks=block_size > 0)
            counts = {kernel.key: count for kernel, count in found.items()}
            kernels[str(block_size)] = dict(sorted(counts.items()))
    lines = ",\n".join(f"{json.dumps(index)}: {json.dumps(network)}" for index, network in record.items())
    RECORD.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
