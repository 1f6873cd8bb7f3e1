"""Record which names TensorRT's Python bindings have, into tensorrt_api.json beside this file.

    python tests/runtime/record_tensorrt_api.py FOLDER...

FOLDER holds an unpacked wheel of the bindings alone (`pip download --no-deps tensorrt-bindings==8.6.1`,
`tensorrt-cu12-bindings==10.…`, `…==11.…`: 1 MB each). Their native library wants libnvinfer and its like; to
read names, empty libraries that a C compiler makes here are enough, so neither TensorRT nor a GPU is needed.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from dsonas_hw.runtime.libraries import needed_libraries

API = Path(__file__).with_name("tensorrt_api.json")
CLASSES = (
    *("Builder", "BuilderFlag", "DataType", "Dims", "EngineInspector", "IBuilderConfig", "ICudaEngine"),
    *("IExecutionContext", "IHostMemory", "ILayer", "ILogger", "INetworkDefinition", "IOptimizationProfile"),
    *(
        "IProfiler",
        "ITensor",
        "ITimingCache",
        "LayerInformationFormat",
        "NetworkDefinitionCreationFlag",
        "OnnxParser",
    ),
    *("ParserError", "PreviewFeature", "ProfilingVerbosity", "Runtime", "TensorIOMode"),
)
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getBuilderPluginRegistry"),
    *("getPluginRegistry", "initLibNvInferPlugins", "getNvOnnxParserVersion"),
    *("_ZN11nvuffparser15createUffParserEv", "_ZN11nvuffparser8FieldMapC1EPKcPKvNS_9FieldTypeEi"),
    *("_ZN14nvcaffeparser117createCaffeParserEv", "_ZN14nvcaffeparser123shutdownProtobufLibraryEv"),
)


def load_empty_libraries(native: Path, folder: Path) -> None:
    """Satisfy what the bindings link to with libraries whose functions do nothing."""
    source = folder / "empty.c"
    source.write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for name in needed_libraries(native):
        if name.startswith("libnv"):
            path = folder / name
            command = ["cc", "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(path), str(source)]
            subprocess.run(command, check=True)
            ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)


def record(folder: Path) -> dict[str, object]:
    """Class → its public members, of the bindings in a folder."""
    with tempfile.TemporaryDirectory() as temporary:
        load_empty_libraries(folder / "tensorrt_bindings" / "tensorrt.so", Path(temporary))
        sys.path.insert(0, str(folder))
        import tensorrt_bindings.tensorrt as bindings  # type: ignore[import-not-found]

        names: dict[str, object] = {"__version__": str(sys.modules["tensorrt_bindings"].__version__)}
        for name in CLASSES:
            members = dir(getattr(bindings, name))
            names[name] = sorted(member for member in members if not member.startswith("_"))
        severities = dir(bindings.ILogger.Severity)
        names["ILogger.Severity"] = sorted(name for name in severities if name.isupper())
    return names


def main() -> None:
    if len(sys.argv) == 2:
        print(json.dumps(record(Path(sys.argv[1]))))
        return
    recorded = {}
    for folder in sys.argv[1:]:  # one process per version: two of them cannot live in one
        done = subprocess.run([sys.executable, __file__, folder], capture_output=True, text=True, check=True)
        names = json.loads(done.stdout)
        recorded[names["__version__"].split(".")[0]] = names
    text = json.dumps(recorded, indent=1)
    API.write_text(text.replace('",\n   "', '", "') + "\n")


if __name__ == "__main__":
    main()
