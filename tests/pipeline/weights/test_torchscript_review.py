"""TorchScript from strangers: whatever spelling it takes, nothing but a network's arithmetic is loaded or run."""

import ast
import io
import re
import shutil
import subprocess
import sys
import zipfile

import pytest
import torch
from hostile_files import write
from overlay_networks import NETWORKS, network
from tiny_weights import Add, scripted, tiny_cncl
from torchscript_files import parts, with_code, zipped

from ct_cncl.pipeline.common.errors import CheckpointError
from ct_cncl.pipeline.sharing.bundle_review import review_bundle
from ct_cncl.pipeline.sharing.verify import VerifyError, verify
from ct_cncl.pipeline.weights import torchscript_operators
from ct_cncl.pipeline.weights.load import open_weights
from ct_cncl.pipeline.weights.torchscript_archive import judge_torchscript
from ct_cncl.pipeline.weights.torchscript_operators import BUILTINS, PRIM_OPERATORS, TORCH_OPERATORS
from ct_cncl.transforms.common.torch_archives import ArchiveError

CPU = torch.device("cpu")
HERE = "CANARY, True, 4"
SPELLINGS = {
    "plain": f"evil = torch.from_file({HERE})",
    "a space before the dot": f"evil = torch .from_file({HERE})",
    "a space behind the dot": f"evil = torch. from_file({HERE})",
    "tabs": f"evil = torch\t.\tfrom_file({HERE})",
    "a line break": f"evil = (torch\n      .from_file({HERE}))",
    "a line that goes on": f"evil = torch.\\\n      from_file({HERE})",
    "brackets": f"evil = ((torch)).from_file({HERE})",
    "a name for torch": f"t = torch\nevil = t.from_file({HERE})",
    "a name of a name": f"t = torch\nu = t\nevil = u.from_file({HERE})",
    "a name for the function": f"f = torch.from_file\nevil = f({HERE})",
    "ops": f"evil = ops.aten.from_file({HERE})",
    "ops with spaces": f"evil = ops . aten. from_file({HERE})",
    "a name for ops": f"a = ops.aten\nevil = a.from_file({HERE})",
    "getattr of torch": f'evil = getattr(torch, "from_file")({HERE})',
    "getattr of ops": f'evil = getattr(ops.aten, "from_file")({HERE})',
    "getattr of getattr": f'evil = getattr(getattr(ops, "aten"), "from_file")({HERE})',
    "in a list": f"evil = [torch.from_file({HERE}) for i in [1]][0]",
    "as an argument": f"evil = torch.add(image, torch.sum(torch.from_file({HERE})))",
    "by a keyword": f"evil = torch.mul(image, other=torch.sum(torch.from_file({HERE})))",
    "in an index": f"evil = image[int(torch.sum(torch.from_file({HERE})))]",
}
"""All of these make a file with torch's own loader."""
OTHERS = {
    "save": "torch.save(image, CANARY)",
    "save by ops": "ops.aten. save(image, CANARY)",
    "print": 'print("x")',
    "print by ops": 'ops.prim.Print("x")',
    "warn": 'torch.warn("x")',
    "time": "t = ops.prim.TimePoint()",
    "a loop without an end": "while True:\n  pass",
    "a loop over a list": "for i in [1, 2]:\n  pass",
    "zeros": "z = torch.zeros([1000, 1000, 1000, 1000])",
    "empty": "z = torch.empty([1000, 1000, 1000, 1000])",
    "empty, as a method": "z = image.new_empty([1000, 1000, 1000])",
    "ones by ops": "z = ops.aten.ones([1000])",
    "memory that is not its own": "z = torch.as_strided(image, [1], [1], 1000000)",
    "random numbers": "torch.manual_seed(3)",
    "a fork": "z = fork(self.forward, image)",
    "another library": 'z = ops.debugprims.load_tensor("x", [1], [1], dtype=6, device=torch.device("cpu"))',
    "a profiler": 'z = ops.profiler._record_function_enter_new("x", None)',
    "a class of another library": '__torch__.torch.classes.quantized.Conv2dPackedParamsBase()',
    "an import": "import os",
    "an assertion": 'assert False, "x"',
    "a lambda": f"f = lambda: torch.from_file({HERE})",
    "a text with code": 'f = f"{image}"',
    "arithmetic that torch never prints": "z = image + image",
    "a name of torch's": "torch = image",
    "a name that nothing binds": "z = somewhere",
    "a quote in a text": "z = 'a\"b'",
    "an escape in a text": r'z = "a\\b"',
}  # fmt: skip


@pytest.fixture
def canary(tmp_path):
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "something in a file of weights was run"


def evil_file(path, lines, canary):
    result = "torch.sum(evil)" if "evil = " in lines else "image"
    return with_code(path, lines.replace("CANARY", f'"{canary}"'), result=result)


def refused(path):
    assert judge_torchscript(path).doubts
    with pytest.raises(CheckpointError, match="Do not use it; ask for the .pt file") as caught:
        open_weights(path, CPU)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_that_writes_with_torch_itself_is_refused(spelling, tmp_path, canary):
    path = evil_file(tmp_path / "model.ts", SPELLINGS[spelling], canary)
    refused(path)
    assert not canary.exists()
    torch.jit.load(str(path))(torch.zeros(1, 1, 4, 4))
    assert canary.exists(), "the attack itself does not work: it proves nothing"
    canary.unlink()


@pytest.mark.parametrize("what", OTHERS)
def test_what_reads_writes_prints_waits_or_allocates_is_refused(what, tmp_path, canary, capfd):
    refused(evil_file(tmp_path / "model.ts", OTHERS[what], canary))
    assert "x" not in capfd.readouterr().out


def test_what_would_run_while_loading_is_refused(tmp_path, canary):
    """Torch calls __setstate__ when it loads, before anything of a network is asked for."""
    own = parts()
    (name,) = (name for name in own if name.endswith(".py"))
    own[name] += (
        "  def __setstate__(self: __torch__.tiny_weights.Add,\n    state: Tuple[Tensor, bool]) -> NoneType:\n"
        f'    torch.save(1, "{canary}")\n    self.change = (state)[0]\n    self.training = (state)[1]\n    return None\n'
    ).encode()
    path = zipped(tmp_path / "model.ts", own)
    assert "a method called __setstate__" in judge_torchscript(path).doubts
    refused(path)


def test_a_method_named_as_an_operator_does_not_open_the_operator_to_strings(tmp_path, canary):
    own = parts()
    (name,) = (name for name in own if name.endswith(".py"))
    own[name] += b"  def save(self: __torch__.tiny_weights.Add,\n    image: Tensor) -> Tensor:\n    return image\n"
    path = zipped(tmp_path / "model.ts", own)
    assert "a method called save" in judge_torchscript(path).doubts
    refused(path)


def test_code_of_another_file_in_the_archive_is_judged_too(tmp_path, canary):
    own = parts()
    top = next(iter(own)).split("/")[0]
    own[f"{top}/code/__torch__/more.py"] = (
        f'def f(x: Tensor) -> Tensor:\n  return torch.from_file("{canary}")\n'.encode()
    )
    refused(zipped(tmp_path / "model.ts", own))


@pytest.mark.parametrize(
    "name", ["model.json", "bytecode.pkl", "code/other/x.py", "code/__torch__/a b.py", "data/x", "more.pkl"]
)
def test_parts_that_torch_does_not_write_into_a_network_are_refused(name, tmp_path):
    own = parts()
    own[f"{next(iter(own)).split('/')[0]}/{name}"] = b"x"
    refused(zipped(tmp_path / "model.ts", own))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_part_that_is_there_twice_is_refused(tmp_path):
    path = scripted(Add(0.0), tmp_path / "model.ts")
    with zipfile.ZipFile(path, "a") as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".py"))
        archive.writestr(name, archive.read(name))
    refused(path)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"c__torch__.tiny_weights\nAdd\n", b"cos\nsystem\n", "os.system"),
        (b"c__torch__.tiny_weights\nAdd\n", b"c__torch__.torch.classes.quantized\nX\n", "quantized"),
        (b"c__torch__.tiny_weights\nAdd\n", b"\x8c\x02os\x8c\x06system\x93", "in data.pkl"),
        (b"cpuq\x06K\x01t", b"cpuq\x06K\xfft", "weights beyond the end"),
        (b"K\x00(t(t\x89", b"K\x07(t(t\x89", "a tensor beyond the end"),
        (b"K\x00(t(t\x89", b"K\x00(K\x09t(K\x04t\x89", "a tensor beyond the end"),
    ],
)
def test_what_its_pickle_names_and_how_far_its_tensors_reach(old, new, said, tmp_path):
    own = parts()
    (name,) = (name for name in own if name.endswith("/data.pkl"))
    assert old in own[name], own[name]
    own[name] = own[name].replace(old, new)
    path = zipped(tmp_path / "model.ts", own)
    assert said in " ".join(judge_torchscript(path).doubts)
    refused(path)


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Every overlay's network as a TorchScript file, by name."""
    folder = tmp_path_factory.mktemp("exports")
    for name in NETWORKS:
        torch.jit.save(torch.jit.script(network(name).eval()), str(folder / f"{name}.ts"))
    return {name: folder / f"{name}.ts" for name in NETWORKS}


@pytest.mark.parametrize("cast", ["unchecked_cast", "uninitialized"])
@pytest.mark.parametrize(
    "kind", ["__torch__.tiny_weights.Wide", "Tuple[Tensor, Tensor]", "Optional[List[__torch__.tiny_weights.Wide]]"]
)
def test_no_object_is_taken_for_a_larger_one(cast, kind, tmp_path):
    """torch looks at no size there: the 2,900th attribute of an object of two killed the process."""
    arguments = f"{kind}, self" if cast == "unchecked_cast" else kind
    wide = "class Wide(Module):\n  a : Tensor\n  b : Tensor\n"
    path = with_code(tmp_path / "model.ts", f"w = {cast}({arguments})", more=wide)
    assert judge_torchscript(path).doubts == [f"{cast} of {kind if len(kind) <= 40 else kind[:40] + '...'}"]
    refused(path)


class One(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + 1


class Two(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image + 2


class Both(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = One(), Two()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.two(self.one(image))


def test_an_attribute_of_another_class_than_declared_is_refused(tmp_path):
    path = scripted(Both(), tmp_path / "model.ts")
    assert judge_torchscript(path).doubts == []
    with zipfile.ZipFile(path) as archive:
        own = {name: archive.read(name) for name in archive.namelist()}
    (name,) = (name for name in own if name.endswith("/data.pkl"))
    assert own[name].count(b"\nOne\n") == 1
    own[name] = own[name].replace(b"\nOne\n", b"\nTwo\n")
    path = zipped(tmp_path / "swapped.ts", own)
    assert judge_torchscript(path).doubts == ["an attribute 'one' of another type than its class says"]
    refused(path)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_this_project_pass(name, exports):
    assert judge_torchscript(exports[name]).doubts == []


@pytest.mark.parametrize("name", NETWORKS[::6])
def test_what_torch_reads_of_them_is_the_same_network(name, exports):
    judged = judge_torchscript(exports[name])
    before, after = torch.jit.load(str(exports[name])), torch.jit.load(io.BytesIO(judged.rebuilt()))
    states = before.state_dict(), after.state_dict()
    assert list(states[0]) == list(states[1])
    assert all(torch.equal(*pair) for pair in zip(states[0].values(), states[1].values()))
    graphs = [
        re.sub(r" # .*", "", str(module.inlined_graph)) for module in (before, after)
    ]  # less places in the source
    assert graphs[0] == graphs[1]


def _called(path):
    """Names behind torch., behind ops. and of bare functions, as torch prints them."""
    with zipfile.ZipFile(path) as archive:
        trees = [ast.parse(archive.read(name)) for name in archive.namelist() if name.endswith(".py")]
    calls = [ast.unparse(node.func) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return {name for name in calls if name.startswith(("torch.", "ops.")) or name in BUILTINS}


def test_the_list_of_operators_is_what_our_exports_use_and_plain_arithmetic(exports):
    used = set().union(*(_called(path) for path in exports.values()))
    allowed = {f"torch.{name}" for name in TORCH_OPERATORS} | {f"ops.prim.{name}" for name in PRIM_OPERATORS} | BUILTINS
    assert used <= allowed
    ours = {f"torch.{name}" for name in torchscript_operators._OF_OUR_EXPORTS.split()}
    assert ours == {name for name in used if name.startswith("torch.")}


def test_no_allowed_operator_takes_a_file_a_device_or_makes_something_of_nothing():
    """All overloads: whoever writes a file chooses among them."""
    texts = {"a", "b", "cls", "el", "item", "key", "l", "msg", "s", "self", "separator", "string", "value"}
    texts |= {"approximate", "mode", "padding", "rounding_mode"}
    schemas = [s for s in torch._C._jit_get_all_schemas() if s.name.startswith(("aten::", "prim::"))]
    for schema in schemas:
        space, name = schema.name.split("::")
        if name not in (TORCH_OPERATORS if space == "aten" else PRIM_OPERATORS):
            continue
        kinds = [str(argument.type) for argument in schema.arguments]
        assert kinds, schema
        devices = set() if name in ("eq", "ne") else {"Device"}  # these compare two
        assert not (devices | {"Generator", "Storage", "Stream"}) & set(kinds), schema
        assert {a.name for a in schema.arguments if str(a.type) == "str"} <= texts, schema


def test_a_bundle_is_not_run_by_verify_without_trust(tmp_path, canary):
    bundle = tmp_path / "bundle"
    write(bundle, "configs/inference.json", {})
    evil_file(bundle / "models" / "model.ts", SPELLINGS["a space behind the dot"], canary)
    assert [(one.kind, one.known) for one in review_bundle(bundle).findings] == [("TorchScript", False)]
    with pytest.raises(VerifyError, match="--trust"):
        verify(bundle)


def test_trust_loads_the_file_as_it_is(tmp_path):
    path = evil_file(tmp_path / "model.ts", "z = torch.zeros([1])", tmp_path)
    assert open_weights(path, CPU, trust=True).slices == 1


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_a_process_that_opens_them_all_writes_none_of_their_files(tmp_path, canary):
    """What the kernel saw: no file was opened for writing where the spellings want one."""
    for number, lines in enumerate([*SPELLINGS.values(), *OTHERS.values()]):
        evil_file(tmp_path / "evil" / f"{number}.ts", lines, canary)
    script = (
        "import sys, torch; from pathlib import Path; from ct_cncl.pipeline.weights.load import open_weights\n"
        "for path in sorted(Path(sys.argv[1]).glob('*.ts')):\n"
        "    try: open_weights(path, torch.device('cpu'))\n"
        "    except ValueError: print('refused')\n"
    )
    trace = tmp_path / "trace"
    command = [
        "strace",
        "-f",
        "--seccomp-bpf",
        "-e",
        "trace=open,openat,creat,rename,truncate,ftruncate",
        "-o",
        str(trace),
    ]
    command += [sys.executable, "-c", script, str(tmp_path / "evil")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if "ptrace" in done.stderr.lower():
        pytest.skip("this machine lets no process trace another")
    assert done.stdout.count("refused") == len(SPELLINGS) + len(OTHERS), done.stderr[-1000:]
    text = trace.read_text()
    assert str(tmp_path / "evil" / "0.ts") in text  # the trace shows what is opened
    assert str(canary) not in text
    assert not [
        line for line in text.splitlines() if str(tmp_path) in line and re.search(r"O_WRONLY|O_RDWR|O_CREAT", line)
    ]


def test_a_small_file_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    own = parts()
    (name,) = (name for name in own if name.endswith(".py"))
    own[name] = own[name] + b"#" * (64 << 20)
    path = zipped(tmp_path / "model.ts", own, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ArchiveError, match="would grow to 64 MiB"):
        judge_torchscript(path)
    with pytest.raises(CheckpointError, match=f"in {path}, but it would grow"):
        open_weights(path, CPU)
    bundle = tmp_path / "bundle"
    write(bundle, "configs/inference.json", {})
    (bundle / "models").mkdir()
    path.rename(bundle / "models" / "model.ts")
    (found,) = review_bundle(bundle).findings
    assert "would grow" in found.text


def test_a_checkpoint_that_unpacks_to_gigabytes_is_not_unpacked(tmp_path):
    path, _ = tiny_cncl(tmp_path)
    with zipfile.ZipFile(path) as archive:
        own = {name: archive.read(name) for name in archive.namelist()}
    name = next(name for name in own if "/data/" in name)
    own[name] += bytes(64 << 20)
    zipped(path, own, zipfile.ZIP_DEFLATED)
    with pytest.raises(CheckpointError, match="would grow to 64 MiB"):
        open_weights(path, CPU)


@pytest.mark.parametrize(
    "code", ["x = (" * 5000, "def f(:\n", "a" * (2 << 20), "x = " + "-" * 100_000 + "1\n", "\0", "\xff"]
)
def test_code_that_no_parser_takes_is_one_line(code, tmp_path):
    own = parts()
    (name,) = (name for name in own if name.endswith(".py"))
    own[name] = code.encode("latin-1")
    with pytest.raises(CheckpointError, match="Expected a TorchScript file in") as caught:
        open_weights(zipped(tmp_path / "model.ts", own), CPU)
    assert "\n" not in str(caught.value)
