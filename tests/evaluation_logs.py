"""What do evaluation tools write? Small logs in the layouts of lm-evaluation-harness and Inspect, of our own questions.

`python -m tests.evaluation_logs FOLDER` writes the runs that docs/evaluation-logs.md walks through.
"""

from __future__ import annotations

import hashlib
import json
import random
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ZSTD, DEFLATED, STORED = 93, 8, 0
STAMP = "2026-11-23T17-00-03.842048"
#: Largest sum that each model gets right, and the kinds of things that it knows.
SKILLS: Mapping[str, tuple[int, tuple[str, ...]]] = {
    "acme/small-1b": (20, ("fruit",)),
    "acme/medium-8b": (70, ("fruit", "tool")),
    "acme/large-70b": (200, ("fruit", "tool", "animal")),
}
PRICES = "model,input,output\nsmall-1b,0.1,0.1\nmedium-8b,0.2,0.2\nlarge-70b,0.9,0.9\n"
THINGS = {
    "fruit": ["apple", "plum", "cherry", "melon", "pear", "grape", "peach", "lemon"],
    "tool": ["hammer", "saw", "chisel", "wrench", "drill", "file", "pliers", "rasp"],
    "animal": ["otter", "finch", "beetle", "salmon", "badger", "heron", "newt", "moth"],
}


def sum_questions(n: int = 160) -> list[tuple[int, int]]:
    """Pairs of numbers to add, all different."""
    rng = random.Random(1)
    pairs = [(a, b) for a in range(1, 100) for b in range(1, 100)]
    return rng.sample(pairs, n)


def kind_questions(n: int = 140) -> list[dict[str, Any]]:
    """Which of three things is of a kind?"""
    rng = random.Random(2)
    found: dict[str, dict[str, Any]] = {}
    while len(found) < n:
        kind = rng.choice(list(THINGS))
        choices = [rng.choice(things) for things in THINGS.values()]
        rng.shuffle(choices)
        answer = next(i for i, thing in enumerate(choices) if thing in THINGS[kind])
        question = f"Which of {choices[0]}, {choices[1]} and {choices[2]} is a kind of {kind}?"
        found[question] = {"question": question, "choices": choices, "answer": answer, "kind": kind}
    return list(found.values())


def lm_eval_row(
    doc_id: int, doc: Mapping[str, Any], prompt: str, score: Mapping[str, Any], **keys: Any
) -> dict[str, Any]:
    """One line of a sample file, as lm_eval 0.4.13 writes it; a generation unless `arguments` and `resps` are given."""
    text = json.dumps(doc, indent=2, ensure_ascii=False)
    target = str(doc.get("answer", ""))
    return {
        "doc_id": doc_id,
        "doc": doc,
        "target": target,
        "arguments": {"gen_args_0": {"arg_0": prompt, "arg_1": {"until": ["\n"], "do_sample": False}}},
        "resps": [["an answer"]],
        "filtered_resps": ["an answer"],
        "filter": "none",
        "metrics": list(score),
        "doc_hash": hashlib.sha256(text.encode()).hexdigest(),
        "prompt_hash": hashlib.sha256(prompt.encode()).hexdigest(),
        "target_hash": hashlib.sha256(target.encode()).hexdigest(),
        **score,
        **keys,
    }


def write_lm_eval(
    out: Path,
    model: str,
    tasks: Mapping[str, Sequence[Mapping[str, Any]]],
    *,
    stamp: str = STAMP,
    lines: bool = True,
    suffix: str = ".jsonl",
    **head: Any,
) -> Path:
    """One run: results and a sample file for each task; returns the model's folder."""
    folder = out / model.replace("/", "__")
    folder.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    for task, rows in tasks.items():
        results[task] = {"alias": task}
        for metric in {metric: None for row in rows for metric in row.get("metrics", ())}:
            for name in {row.get("filter", "none"): None for row in rows}:
                values = [row[metric] for row in rows if row.get("filter", "none") == name and metric in row]
                numbers = [value for value in values if isinstance(value, bool | int | float)]
                results[task][f"{metric},{name}"] = sum(numbers) / len(numbers) if numbers else "N/A"
        text = (
            "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows) if lines else json.dumps(rows, indent=2)
        )
        (folder / f"samples_{task}_{stamp}{suffix}").write_text(text, encoding="utf-8")
    better = {task: {m: True for row in rows for m in row.get("metrics", ())} for task, rows in tasks.items()}
    content = {
        "results": results,
        "higher_is_better": better,
        "config": {"model": "hf", "model_args": {"pretrained": model}},
        "lm_eval_version": "0.4.13",
        "model_name": model,
        "chat_template": None,
        **head,
    }
    (folder / f"results_{stamp}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def lm_eval_tasks(model: str) -> dict[str, list[dict[str, Any]]]:
    """What a model of `SKILLS` answers: sums, generated, and kinds, by likelihood."""
    most, kinds = SKILLS[model]
    sums = []
    for i, (a, b) in enumerate(sum_questions()):
        answer = str(a + b) if a + b <= most else "I do not know."
        doc = {"question": f"What is {a} plus {b}?", "answer": str(a + b)}
        row = lm_eval_row(i, doc, f"Q: {doc['question']}\nA:", {"exact_match": float(answer == doc["answer"])})
        sums.append({**row, "resps": [[answer]], "filtered_resps": [answer]})
    kind_rows = []
    for i, doc in enumerate(kind_questions()):
        right = doc["kind"] in kinds
        prompt = f"Question: {doc['question']}\nAnswer:"
        requests = {
            f"gen_args_{j}": {"arg_0": prompt, "arg_1": f" {choice}"} for j, choice in enumerate(doc["choices"])
        }
        row = lm_eval_row(i, doc, prompt, {"acc": float(right), "acc_norm": float(right)}, arguments=requests)
        kind_rows.append({**row, "resps": [[["-1.5", "False"]] for _ in doc["choices"]]})
    return {"sums": sums, "kinds": kind_rows}


def inspect_sample(number: int | str, question: Any, value: Any, **keys: Any) -> dict[str, Any]:
    """One sample of one epoch, as inspect_ai 0.3.285 writes it; `model_usage` of `acme/small` unless it is given."""
    return {
        "id": number,
        "epoch": 1,
        "input": question,
        "target": "x",
        "output": {"model": "small", "choices": [], "completion": "an answer"},
        "scores": {"match": {"value": value, "answer": "an answer"}},
        "metadata": {},
        "model_usage": {"acme/small": {"input_tokens": 10, "output_tokens": 4, "total_tokens": 14}},
        "attachments": {},
        **keys,
    }


def inspect_head(model: str = "acme/small", task: str = "sums", **facts: Any) -> dict[str, Any]:
    """The header of a log; facts are of its `eval`."""
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "created": "2026-11-23T16:56:40+00:00",
            "task": task,
            "task_args": {},
            "dataset": {"name": "own", "shuffled": False},
            "model": model,
            "config": {"epochs": 1},
            "packages": {"inspect_ai": "0.3.285"},
            "scorers": [{"name": "match", "options": {}}],
            **facts,
        },
        "results": {"scores": [{"name": "match", "scorer": "match"}], "headline": {"scorer": "match"}},
    }


def write_inspect(
    path: Path, head: Mapping[str, Any] | None, samples: Sequence[Mapping[str, Any]], *, method: int = ZSTD
) -> Path:
    """A log by its suffix, `.eval` or `.json`; without a head, a run that has not ended."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".json":
        path.write_text(json.dumps({**(head or {}), "samples": samples}, indent=2), encoding="utf-8")
        return path
    members = [(f"samples/{s['id']}_epoch_{s['epoch']}.json", json.dumps(s).encode()) for s in samples]
    if head is not None:
        members.append(("header.json", json.dumps(head).encode()))
    return write_zip(path, members, method=method)


def write_zip(path: Path, members: Sequence[tuple[str, bytes]], *, method: int = ZSTD, wrong_crc: bool = False) -> Path:
    """An archive as Inspect writes it, with zstd where asked; names may repeat."""
    local, central = bytearray(), bytearray()
    for name, raw in members:
        data, encoded = _compress(raw, method), name.encode()
        crc = zlib.crc32(raw) ^ wrong_crc
        facts = struct.pack("<HHHHIII", 0x800, method, 0, 0x21, crc, len(data), len(raw))
        central += b"PK\x01\x02" + struct.pack("<HH", 63, 63) + facts
        central += struct.pack("<HHHHHII", len(encoded), 0, 0, 0, 0, 0, len(local)) + encoded
        local += b"PK\x03\x04" + struct.pack("<H", 63) + facts + struct.pack("<HH", len(encoded), 0) + encoded + data
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(central), len(local), 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(local + central + b"PK\x05\x06" + end)
    return path


def _compress(raw: bytes, method: int) -> bytes:
    if method == ZSTD:
        import zstandard

        half = len(raw) // 2  # several frames occur
        return b"".join(zstandard.compress(part) for part in (raw[:half], raw[half:]))
    if method == DEFLATED:
        packer = zlib.compressobj(wbits=-15)
        return packer.compress(raw) + packer.flush()
    return raw


def write_inspect_runs(out: Path) -> None:
    """Three models' logs of the sums."""
    for model, (most, _) in SKILLS.items():
        samples = []
        for i, (a, b) in enumerate(sum_questions()):
            answer = str(a + b) if a + b <= most else "I do not know."
            used = {"input_tokens": 12, "output_tokens": 1 + len(answer) // 4, "total_tokens": 13 + len(answer) // 4}
            samples.append(
                inspect_sample(
                    i + 1,
                    f"What is {a} plus {b}?",
                    "C" if answer == str(a + b) else "I",
                    output={"model": model, "choices": [], "completion": answer},
                    model_usage={model: used},
                )
            )
        name = model.replace("/", "-")
        write_inspect(out / f"2026-11-23T16-56-40-00-00_sums_{name}.eval", inspect_head(model), samples)


def write_runs(folder: Path) -> None:
    """Three models' runs by either tool, and a table of prices."""
    for model in SKILLS:
        write_lm_eval(folder / "runs", model, lm_eval_tasks(model))
    write_inspect_runs(folder / "logs")
    (folder / "prices.csv").write_text(PRICES)


if __name__ == "__main__":
    write_runs(Path(sys.argv[1]))
