"""Rules for our own code, checked in its syntax tree."""

import ast

FORBIDDEN_CALLS = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_METHODS = {
    ("os", "system"), ("os", "popen"), ("subprocess", "getoutput"), ("yaml", "load"),
    ("subprocess", "getstatusoutput"), ("yaml", "unsafe_load"), ("yaml", "full_load"),
    ("pd", "read_pickle"), ("tempfile", "mktemp"),
}  # fmt: skip
PICKLES = {"pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}
ALLOWED = {("pickle", "UnpicklingError")}  # to catch what torch refuses
# Loaders of transformers. Without trust_remote_code they ask on the terminal.
LOADERS = {"from_pretrained", "from_config"}
PLAIN = {"PeftConfig", "transformers.GenerationConfig"}  # JSON alone, which loads no code


def broken_rules(source: str) -> list[str]:
    """The rules that a source breaks, with lines."""
    broken = []
    for node in ast.walk(ast.parse(source)):
        broken += [f"line {node.lineno}: {problem}" for problem in _problems(node)]
    return broken


def _problems(node):
    if isinstance(node, ast.Import):
        yield from (f"imports {a.name}" for a in node.names if a.name.split(".")[0] in PICKLES)
    if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in PICKLES:
        names = {alias.name for alias in node.names}
        if any((node.module, name) not in ALLOWED for name in names):
            yield f"imports from {node.module}"
    if isinstance(node, ast.Call):
        yield from _call_problems(node)


def _call_problems(call):
    options = {word.arg: word.value for word in call.keywords}

    def says(name, value):
        return isinstance(options.get(name), ast.Constant) and options[name].value == value

    if isinstance(call.func, ast.Name) and call.func.id in FORBIDDEN_CALLS:
        yield f"calls {call.func.id}"
    if ast.unparse(call.func).endswith("YAML") and not says("typ", "safe"):
        yield "reads YAML that may build any object"
    if "shell" in options and not says("shell", False):
        yield "starts a shell"
    if "allow_pickle" in options and not says("allow_pickle", False):
        yield "allows pickle"
    if "trust_remote_code" in options and not says("trust_remote_code", False):
        yield "trusts remote code"
    if not isinstance(call.func, ast.Attribute):
        return
    owner, method = ast.unparse(call.func.value), call.func.attr
    if (owner, method) in FORBIDDEN_METHODS:
        yield f"calls {owner}.{method}"
    if (owner, method) == ("torch", "load") and not says("weights_only", True):
        yield "loads a pickle with torch"
    if method in LOADERS and owner not in PLAIN and not says("trust_remote_code", False):
        yield f"{owner}.{method} does not refuse remote code"
    if method == "from_pretrained" and "Model" in owner and not says("use_safetensors", True):
        yield f"{owner} may load pickled weights"
