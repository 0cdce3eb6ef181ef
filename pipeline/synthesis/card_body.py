"""The page of a dataset's card, in Markdown: what is in it, how it was made, what to beware of.

The blocks between marks are made of the front matter and of `decontamination.json` alone, so that
a check can make them again. Names of pictures and words of models are shown as plain text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from pipeline.synthesis.publish import OVERLAPS, Publication
from pipeline.synthesis.published_files import RECIPES
from pipeline.synthesis.run_story import command_of, made_with

COUNTED = ("<!-- counted in the Parquet files -->", "<!-- end of what is counted -->")
LEAKS = (f"<!-- from {OVERLAPS} -->", "<!-- end of the look for benchmarks -->")

NOT_CHECKED = "Not checked: nobody compared these pictures with any benchmark."
HOW = {
    "trajectories": """\
Each row is one question about one picture at one resolution budget R: what was looked at, box by
box, and the answer. No view of a row has more than R² pixels; boxes (`steps`, XYXY) are pixels of
the published picture, and crops follow from them. `verified`: the answer is the known one.""",
    "prompts": """\
Each row is a picture whose objects are shown in the order of their saliency, frame by frame:
`frames` are the cumulative prompts, `objects` the masks (COCO run lengths) by descending saliency,
`level_sizes` how many of them each frame shows.""",
}
LIMITS = {
    "trajectories": """\
- Thoughts and answers were written by a program or a model, not by people; `policies` says which.
- A verified answer does not prove that every look was needed; `necessary` and `sufficient` are
  empty where nobody tested it.
- Rows of one picture are near each other: split by picture (`image_sha256`), never by row.""",
    "prompts": """\
- Saliency is a network's guess, and the order of objects follows from it; objects that a segmenter
  proposed are marked by `segmenter`.
- Split by picture (`image_sha256`), never by row.""",
}
_SAFE = re.compile(r"[<>\[\]|`\n\r]+")


def body(
    publication: Publication,
    facts: dict[str, Any],
    *,
    title: str,
    licence: str | None,
    repo_id: str,
    allowed: Sequence[str],
    shown: Sequence[tuple[str, str]],
) -> str:
    """Everything below the front matter; `shown` are (path, caption) of pictures."""
    run, kind = publication.run, publication.run["kind"]
    main = facts["configs"][0]["config_name"]
    parts = [f"# {title}", HOW[kind]]
    parts += [f"![A row]({path})\n\n<sub>{plain(told)}</sub>" for path, told in shown]
    parts += ["## What is in it", counted(facts)]
    parts += ["## How it was made", made_with(publication), f"```sh\n{command_of(run)}\n```"]
    parts += ["## Overlap with benchmarks", leaks(publication.overlaps)]
    if allowed:
        parts.append("Allowed by name when it was pushed: " + ", ".join(map(plain, allowed)) + ".")
    parts += ["## Limits", LIMITS[kind]]
    parts += ["## Licence", _terms(publication, licence)]
    parts += ["## Reading it", _reading(publication, repo_id, main)]
    return "\n\n".join(parts) + "\n"


def counted(facts: dict[str, Any]) -> str:
    """The figures of the front matter as tables, between marks."""
    lines = ["| configuration | split | rows | MB |", "|---|---|---:|---:|"]
    for info in facts["dataset_info"]:
        size = f"{info['download_size'] / 1e6:,.2f}"
        for place, split in enumerate(info["splits"]):
            shown = size if place == 0 else ""
            name = plain(info["config_name"])
            lines.append(f"| {name} | {split['name']} | {split['num_examples']:,} | {shown} |")
    numbers = facts["cofpipe"]["numbers"]
    lines += _yield(numbers)
    for config, told in numbers.items():
        lines += ["", f"**{plain(config)}**", "", "| | |", "|---|---|"]
        lines += [f"| {name.replace('_', ' ')} | {_told(value)} |" for name, value in told.items()]
    lines += ["", f"Digest of these files: `{facts['cofpipe']['digest']}`."]
    return "\n".join([COUNTED[0], "", *lines, "", COUNTED[1]])


def leaks(overlaps: bytes | None) -> str:
    """What the look for benchmark pictures found, between marks."""
    return "\n".join([LEAKS[0], "", *(_leaks(overlaps)), "", LEAKS[1]])


def plain(text: object) -> str:
    """Text on one line that Markdown takes for text."""
    return " ".join(_SAFE.sub(" ", str(text)).split()).replace("*", "\\*").replace("_", "\\_")


def _yield(numbers: dict[str, Any]) -> list[str]:
    """How much of what was tried is kept, where both are published; and what was paid."""
    lines = list[str]()
    kept = next(
        (numbers[kind]["rows"] for kind in ("trajectories", "prompts") if kind in numbers), 0
    )
    if kept:
        refused = numbers.get("rejections", {"rows": 0, "set_aside": 0})
        lost = refused["rows"] - refused["set_aside"]
        share = kept / (kept + lost)
        lines += ["", f"Yield: {kept:,} rows kept, {lost:,} rejected ({share:.1%} kept)."]
    calls = numbers.get("calls")
    if calls:
        tokens = f"{calls['tokens_in']:,} tokens in, {calls['tokens_out']:,} out"
        money = "no price was set"
        if "cost_usd" in calls:
            money = f"{calls['cost_usd']:,} USD by the run's prices"
        lines += ["", f"Model calls: {calls['calls']:,}, {tokens}, {money}."]
    elif kept:
        lines += ["", "Model calls: none were recorded."]
    return lines


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return " · ".join(f"{plain(name)}: {count:,}" for name, count in value.items())
    return f"{value:,}"


def _leaks(overlaps: bytes | None) -> list[str]:
    if overlaps is None:
        return [NOT_CHECKED]
    told = json.loads(overlaps)
    found = told["overlaps"]
    lines = [
        f"{told['pictures']:,} pictures were compared, {told['plain']:,} of which show too little "
        f"for more than equality (method {told['method']}, file `{OVERLAPS}`).",
        "",
        "| compared with | its pictures | overlaps | how |",
        "|---|---:|---:|---|",
    ]
    for one in told["against"]:
        mine = [each for each in found if each["set"] == one["name"]]
        ways = plain(", ".join(sorted({each["how"] for each in mine})))
        lines.append(f"| {plain(one['name'])} | {one['pictures']:,} | {len(mine):,} | {ways} |")
    inside, unseen = len(told["inside"]), len(told["unreadable"])
    lines += ["", f"Groups of near-duplicates inside the dataset: {inside:,}."]
    lines += ["", f"Pictures that could not be compared: {unseen:,}."] if unseen else []
    return lines


def _terms(publication: Publication, licence: str | None) -> str:
    mine = f"This dataset: {plain(licence)}." if licence else "No licence has been chosen."
    if not publication.origins:
        return mine
    lines = [mine, "", "What the sources say of their pictures:", "", "| source | licence | rows |"]
    lines.append("|---|---|---:|")
    for source, terms, rows in publication.origins:
        lines.append(f"| {plain(source) or '–'} | {plain(terms) or 'not recorded'} | {rows:,} |")
    return "\n".join(lines)


def _reading(publication: Publication, repo_id: str, main: str) -> str:
    text = f"""\
```python
from datasets import load_dataset

rows = load_dataset("{repo_id}", "{main}", split="train", streaming=True)
```

`cofpipe card {repo_id} --check` counts every figure of this page again in the files."""
    folders = sorted(
        {path.split("/")[1] for path in publication.beside if path.startswith(RECIPES)}
    )
    for folder in folders:
        text += f"""

`{RECIPES}/{folder}` holds recipes in the place of pixels: with your own copy of the source,
`cofpipe rehydrate {RECIPES}/{folder} --source …` has the pictures back, bit for bit."""
    return text
