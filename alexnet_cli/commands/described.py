"""What `alexnet info` says of a dataset, model, index, run or ONNX file, in words, and the table of its layers."""

from collections.abc import Sequence
from typing import Any

from alexnet_cli.wording import counted, duration


def in_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines, each a heading and a text, from what `describe` says of an artefact."""
    return {"dataset": _dataset, "model": _model, "index": _index, "run": _run, "onnx": _onnx}[facts["kind"]](facts)


def _dataset(facts: dict[str, Any]) -> list[tuple[str, str]]:
    counts = ", ".join(f"{count:,} {split}" for split, count in facts["images"].items())
    source, side = facts["source"], facts["image_size"]
    kept = ", kept as JPEGs" if facts["store"] == "jpeg" else ""
    return [
        (
            "what it is",
            f"a dataset: {counted(sum(facts['images'].values()), 'picture')} of {side}×{side} pixels ({counts}){kept}",
        ),
        _tells_apart(facts),
        ("packed from", f"{source.get('absolute', source['path'])} ({source['layout']})"),
        ("where", facts["path"]),
        ("fingerprint", facts["fingerprint"]),
    ]


def _run(facts: dict[str, Any]) -> list[tuple[str, str]]:
    updates = facts["updates_in_this_epoch"]
    more = f", and {counted(updates, 'update')} of the next" if updates else ""
    return [
        ("what it is", f"an unfinished training: {facts['description']}"),
        ("recipe", facts["recipe"]),
        ("done", f"{facts['epochs_done']:,} of {counted(facts['epochs'], 'epoch')}{more}"),
        ("trains on", f"{facts['dataset']}, {facts['precision']}, seed {facts['seed']}"),
        ("to resume", facts["resume"]),
        ("where", facts["path"]),
    ]


def _onnx(facts: dict[str, Any]) -> list[tuple[str, str]]:
    side = facts["image_size"]
    return [
        ("what it is", f"a network as an ONNX file, {facts['precision']}, for pictures of {side}×{side} pixels"),
        _tells_apart(facts),
        ("where", facts["path"]),
        ("fingerprint", facts["fingerprint"]),
    ]


def _tells_apart(facts: dict[str, Any]) -> tuple[str, str]:
    return "tells apart", f"{counted(len(facts['classes']), 'class')}: {_first(facts.get('names', facts['classes']))}"


def _model(facts: dict[str, Any]) -> list[tuple[str, str]]:
    is_plain = facts["description"] and not facts["changed"]
    changed = f", with {counted(facts['changed'], 'value')} changed" if facts["changed"] else ""
    lines = [
        ("what it is", f"a trained network: {facts['description']}" if is_plain else "a trained network"),
        ("recipe", facts["recipe"] + changed),
        ("size", f"{counted(facts['parameters'], 'parameter')} in {counted(len(facts['layers']), 'layer')}"),
        _tells_apart(facts),
        *_origin(facts),
    ]
    if "validation_error" in facts:
        errors = f"top-1 {facts['validation_error']:.1%}"
        if len(facts["classes"]) > 5:
            errors += f", top-5 {facts['validation_top5_error']:.1%}"
        lines.append(("validation error", f"{errors} (one view, after the last epoch)"))
    lines += [("where", facts["path"]), ("fingerprint", facts["fingerprint"])]
    return lines


def layer_lines(layers: Sequence[dict[str, Any]]) -> list[str]:
    """The table of ``layers``, as `describe` has them, and what its numbers are, in lines of at most 80 letters."""
    heads = ["layer", "kernels", "size", "stride", "output", "neurons", "weights", "connections", "field"]
    totals = [f"{sum(layer[key] for layer in layers):,}" for key in ("neurons", "weights", "connections")]
    cells = [heads, *map(_layer_cells, layers), ["all", "", "", "", "", *totals, ""]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(heads))]
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= 80 else " "
    aligned = [[cell.rjust(width) for cell, width in zip(row, widths, strict=True)] for row in cells]
    names = [row[0].ljust(widths[0]) for row in cells]
    biases = sum(layer["biases"] for layer in layers)
    return [
        *(gap.join([name, *row[1:]]).rstrip() for name, row in zip(names, aligned, strict=True)),
        f"weights: without {biases:,} biases; connections: multiply-adds for one picture",
        "size: side of a kernel; field: side of what a unit sees, pixels of the picture",
    ]


def _layer_cells(layer: dict[str, Any]) -> list[str]:
    field = layer["field"]["size"] if layer["field"] else None
    return [
        layer["name"],
        *("" if value is None else str(value) for value in (layer["kernels"], layer["size"], layer["stride"])),
        "×".join(map(str, layer["output"])),
        *(f"{layer[key]:,}" for key in ("neurons", "weights", "connections")),
        "" if field is None else str(field),
    ]


def _index(facts: dict[str, Any]) -> list[tuple[str, str]]:
    of = f" ({facts['split']})" if facts["split"] else ""
    recall = f", recall@10 {facts['recall_at_10']:.3f}" if "recall_at_10" in facts else ""
    lines = [
        ("what it is", f"an index of {counted(facts['count'], 'picture')} of {facts['source']}{of}"),
        ("model", f"{facts['model']} ({facts['precision']}), fingerprint {facts['model_fingerprint']}"),
        (
            "kind",
            f"{facts['index_kind']}, {facts['metric']} distance, {facts['dimension']:,} numbers a picture{recall}",
        ),
        ("built", facts["built"]),
        ("where", facts["path"]),
    ]
    if facts["unfinished"]:
        lines.append(("not in it yet", counted(facts["unfinished"], "picture")))
    if facts["missing"]:
        lines.append(("missing", f"{counted(facts['missing'], 'picture')}; to mend: {facts['mend']}"))
    return lines


def _origin(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """What the model was trained on, or imported from, and by what."""
    made = " ".join(str(part) for part in ("by alexnet", facts.get("version"), "on", facts.get("date")) if part)
    if "imported" in facts:
        return [("imported", f"from {facts['source']} ({facts['imported']}), {made}")]
    if "dataset_name" not in facts:
        return []
    start = f", from model {facts['from_name']}" if facts.get("from_name") else ""
    how = f"{counted(facts['epochs'], 'epoch')} in {duration(facts['seconds'])}, {facts['precision']}"
    return [
        ("trained on", f"dataset {facts['dataset_name']}{start}"),
        ("trained for", f"{how}, seed {facts['seed']}, on {facts['machine']}"),
        ("made", made),
    ]


def _first(names: list[str]) -> str:
    return ", ".join(names[:10]) + (" ..." if len(names) > 10 else "")
