"""What the exporters share: from a PyTorch module to a file, and metadata."""

import os
from pathlib import Path

import onnx
from onnx import helper


def metadata(labels, scaling, native_side, colour="rgb"):
    """The keys that salientd reads from an ONNX file; `labels` may be None."""
    values = {"scaling": scaling, "colour": colour, "native_size": f"{native_side}x{native_side}"}
    if labels:
        values["labels"] = "\n".join(labels)
    return values


def write_new(model, path, force=False):
    """Writes the model under its final name in one step; refuses to overwrite."""
    path = Path(path)
    if path.exists() and not force:
        raise SystemExit(f"{path}: exists; give --force to overwrite it")
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    onnx.save(model, part)
    os.replace(part, path)
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")


def from_torch(module, native_side):
    """ONNX model of a module [1, 3, H, W] -> (features, logits), H and W dynamic."""
    import torch

    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        module.eval(),
        (torch.zeros(1, 3, native_side, native_side),),
        input_names=["input"],
        output_names=["features", "logits"],
        dynamic_shapes=({2: dynamic, 3: dynamic},),
        opset_version=18,
        dynamo=True,
        verbose=False,
    )
    model = program.model_proto
    # The exporter names sizes by formulas, which other readers take for syntax errors.
    dimensions = {"input": (1, 3, "H", "W"), "features": (1, None, "h", "w")}
    for value in [*model.graph.input, *model.graph.output]:
        for dim, name in zip(value.type.tensor_type.shape.dim, dimensions.get(value.name, ())):
            if isinstance(name, str):
                dim.dim_param = name
    del model.graph.value_info[:]
    for item in (model.graph, *model.graph.node, *model.graph.input, *model.graph.output, *model.graph.initializer):
        del item.metadata_props[:]
    for node in model.graph.node:
        node.doc_string = ""
    onnx.checker.check_model(model)
    return model


def set_metadata(model, values):
    helper.set_model_props(model, values)
    return model
