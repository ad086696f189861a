"""Compile a CANN that computes on the CPU, for the torch_npu that is installed.

    python build.py FOLDER [--without aclnnFusedSgd ...]

writes FOLDER/lib, to go on LD_LIBRARY_PATH before torch_npu is imported. It needs a C compiler and ``nm``.

The functions that torch_npu wants are read from its own libraries, so no list of them is kept. ``--without``
leaves operators out, as an older CANN does.
"""

import argparse
import importlib.util
import re
import subprocess
from pathlib import Path

from kernels import KERNELS

HERE = Path(__file__).resolve().parent
LIBRARIES = (
    *("acl_op_compiler", "acl_tdt_channel", "ascend_ml", "ge_runner", "graph", "hcomm"),
    *("msprofiler", "nnopbase", "runtime"),
)
"""Libraries that torch_npu links to. They are empty here."""

C_TYPES = {
    "T": "void *", "R": "void *", "S": "void *", "L": "void *", "A": "void *", "B": "void *", "i": "int64_t ",
    "u": "uint64_t ", "c": "int8_t ", "b": "_Bool ", "d": "double ", "f": "float ", "e": "int ",
}  # fmt: skip
MEMBER = {"d": "d", "f": "d"} | dict.fromkeys("iucbe", "i")

HARMLESS = re.compile(
    r"Msprof|acl(Get|Set)TensorDesc|aclSetTensor|aclop(Set|Destroy)|acl(mdl|op)\w*Dump|aclprof|aclProfiling|aclAppLog"
    r"|aclmdlRI(Debug|GetId|CaptureThreadExchangeMode)|aclrt(Set|Reset|Use|Unuse|Peek|Get(Last|Error|Mem|Res|Stream|Device))"
    r"|aclrt(CtxSet|Subscribe|UnSubscribe|ProcessReport|CmoAsync|HostRegister|HostUnregister)|rt(Dev|Func)\w*Register"
)
"""Runtime functions that may do nothing and answer 0. All others fail and say that they are not emulated."""


def launchers(names: set[str], without: set[str]) -> str:
    """C code of the two functions of each operator."""
    lines = []
    for name in sorted(names - without):
        if name not in KERNELS:
            lines.append(f'int {name}GetWorkspaceSize(void) {{ return emulator_refuse("{name}"); }}')
            lines.append(f'int {name}(void) {{ return emulator_refuse("{name}"); }}')
            continue
        kinds = KERNELS[name][0]
        parameters = ", ".join(f"{C_TYPES[kind]}a{i}" for i, kind in enumerate(kinds))
        values = ", ".join(f"{{.{MEMBER.get(kind, 'p')} = a{i}}}" for i, kind in enumerate(kinds))
        lines.append(
            f"int {name}GetWorkspaceSize({parameters}, uint64_t *size, void **executor) {{\n"
            f"  Value v[] = {{{values}}};\n"
            f'  return prepare("{name}", "{kinds}", v, {len(kinds)}, size, executor);\n}}'
        )
        lines.append(f"int {name}(void *w, uint64_t n, void *l, void *s) {{ return launch(l, s); }}")
    return "\n".join(lines) + "\n"


def symbols(path: Path, which: str) -> set[str]:
    """Return the dynamic symbols of a library. which: ``defined`` or ``undefined``."""
    command = ["nm", "-D", f"--{which}-only", path]
    found = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return {line.split()[-1].split("@")[0] for line in found.splitlines() if line.strip()}


def build(folder: Path, without: set[str]) -> str:
    """Write ``folder/lib``; return a line that says what it holds."""
    lib = folder / "lib"
    lib.mkdir(parents=True, exist_ok=True)
    for name in ("runtime", "compiler", "opp", "lib64"):  # folders that torch_npu looks for in a CANN
        (folder / name).mkdir(exist_ok=True)

    def link(name: str, *inputs: object) -> Path:
        path = lib / f"lib{name}.so"
        compiler = ["cc", "-shared", "-fPIC", "-O1", "-w", f"-I{HERE}"]
        subprocess.run([*compiler, *inputs, f"-Wl,-soname,{path.name}", "-o", path], check=True)
        return path

    package = importlib.util.find_spec("torch_npu")
    if package is None or package.origin is None:
        raise SystemExit("torch_npu is not installed in this environment")
    theirs = list((Path(package.origin).parent / "lib").glob("*.so"))
    text = next(path for path in theirs if path.name == "libtorch_npu.so").read_bytes()
    operators = {name.decode() for name in re.findall(rb"\0(aclnn[A-Z]\w*)(?=\0)", text)}
    operators = {name for name in operators if not name.endswith("GetWorkspaceSize")}
    generated = folder / "operators.c"
    generated.write_text((HERE / "operators.c").read_text() + launchers(operators, without))

    wanted = {name for path in theirs for name in symbols(path, "undefined")}
    wanted = {name for name in wanted if re.match(r"acl|Hccl|Hcom|Msprof|rt[A-Z]", name)}
    # torch_npu looks these up by name. Variants that it can do without are left out.
    looked_up = {
        n.decode() for n in re.findall(rb"\0(acl(?:rt|mdlRI|prof|Profiling|op|sk)[A-Z]\w*)(?=\0)", text)
    }
    wanted |= {name for name in looked_up if not re.search("Memcpy|Value|V2|Batch", name)}

    runtime = [HERE / "device.c", HERE / "streams.c", "-lpthread"]
    base = link("ascendcl", *runtime)
    here = [f"-L{lib}", "-lascendcl"]
    made = (base, link("opapi", generated, *here), link("hccl", HERE / "hccl.c", *here))
    rest = sorted(wanted - {name for path in made for name in symbols(path, "defined")})
    bodies = {name: "0" if HARMLESS.match(name) else f'emulator_refuse("{name}")' for name in rest}
    lines = [f"long {name}(void) {{ return {value}; }}" for name, value in bodies.items()]
    (folder / "rest.c").write_text("\n".join(['#include "emulator.h"', *lines, ""]))
    link("ascendcl", *runtime, folder / "rest.c")
    (folder / "empty.c").write_text("")
    for name in LIBRARIES:
        link(name, folder / "empty.c", "-Wl,--no-as-needed", *here)
    known = (operators & KERNELS.keys()) - without
    quiet = sum(bool(HARMLESS.match(name)) for name in rest)
    return (
        f"{len(known)} operators compute and {len(operators) - len(known)} refuse; "
        f"of the runtime's other functions {quiet} do nothing and {len(rest) - quiet} refuse"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--without", nargs="*", default=[], metavar="OPERATOR")
    arguments = parser.parse_args()
    print(build(arguments.folder.resolve(), set(arguments.without)))
