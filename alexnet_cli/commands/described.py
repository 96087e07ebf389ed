"""What `alexnet info` says of a model or an index, in words."""

from typing import Any

from alexnet_cli.wording import counted, duration


def model_in_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines, each a heading and a text, from what `describe` says of a model."""
    lines = [
        ("what it is", f"a trained network: {facts['description']}" if facts["description"] else "a trained network"),
        ("recipe", facts["recipe"]),
        ("size", f"{counted(facts['parameters'], 'parameter')} in {counted(len(facts['layers']), 'layer')}"),
        ("tells apart", f"{counted(len(facts['classes']), 'class')}: {_first(facts.get('names', facts['classes']))}"),
        *_origin(facts),
    ]
    if "validation_error" in facts:
        errors = f"top-1 {facts['validation_error']:.1%}"
        if len(facts["classes"]) > 5:
            errors += f", top-5 {facts['validation_top5_error']:.1%}"
        lines.append(("validation error", f"{errors} (one view, after the last epoch)"))
    lines += [("where", facts["path"]), ("fingerprint", facts["fingerprint"])]
    return lines


def index_in_words(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Lines, each a heading and a text, from what `describe` says of an index."""
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
