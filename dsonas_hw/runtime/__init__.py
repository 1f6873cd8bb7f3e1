"""What runs a network: a folder for each runtime, and the one interface to all (`base`, `registry`).

| folder         | what runs                                                            |
|----------------|----------------------------------------------------------------------|
| `ort_cpu`      | ONNX Runtime on the CPU; measures kernels inside whole networks      |
| `tensorrt`     | an engine that TensorRT builds from the model                        |
| `ort_tensorrt` | ONNX Runtime, TensorRT provider                                      |
| `ort_cuda`     | ONNX Runtime, CUDA provider                                          |
| `eager`        | PyTorch, layer by layer, on the GPU or on the CPU                    |

`ort` holds what the three of ONNX Runtime share. Another runtime is a folder with a `Runtime`, and a line
here: the order is that in which they are tried. Whoever imports this room has them all registered; no
library is imported by that.
"""

from dsonas_hw.runtime.eager.runtime import Eager
from dsonas_hw.runtime.ort_cpu.runtime import OrtCpu
from dsonas_hw.runtime.ort_cuda.runtime import OrtCuda
from dsonas_hw.runtime.ort_tensorrt.runtime import OrtTensorRT
from dsonas_hw.runtime.registry import register
from dsonas_hw.runtime.tensorrt.runtime import TensorRT

for _runtime in (OrtCpu(), TensorRT(), OrtTensorRT(), OrtCuda(), Eager()):
    register(_runtime)
