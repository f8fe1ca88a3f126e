"""LLMRouter's trainers on rows that were written for them; run by bench_llmrouter in an interpreter that has them.

    python llmrouter_side.py FOLDER

For every split's folder and every router: CPU seconds of its trainer's `train` and of the trained model's answers for
the test rows. Their routers would embed a text with a Longformer of the hub first; here the trained model gets the
rows. Reading the files and finding each query's best model, which their constructors do, is not counted.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
import yaml
from llmrouter import models

#: Of configs/model_config_train of github.com/ulab-uiuc/LLMRouter at 0.4.0; kNN's k is that of both sides.
SETTINGS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "knn": ("KNNRouter", "KNNRouterTrainer", {"n_neighbors": 10, "metric": "cosine"}),
    "svm": ("SVMRouter", "SVMRouterTrainer", {"kernel": "rbf", "C": 1.0, "gamma": "scale", "probability": True}),
    "mlp": (
        "MLPRouter",
        "MLPTrainer",
        {
            "hidden_layer_sizes": [128, 64],
            "activation": "relu",
            "lr": 0.001,
            "epochs": 100,
            "batch_size": 32,
            "alpha": 0.0001,
        },
    ),
    "mf": ("MFRouter", "MFRouterTrainer", {"latent_dim": 128, "lr": 0.001, "epochs": 5, "noise_alpha": 0.0}),
}


def chosen(name: str, router: Any, model: Any, rows: np.ndarray) -> list[str]:
    """Names of the models that a trained router calls for these rows. [n]."""
    if name in ("knn", "svm"):
        return [str(each) for each in model.predict(rows)]
    with torch.no_grad():
        if name == "mlp":
            numbers = model.predict(torch.from_numpy(rows))
        else:
            projected = model.project_text(torch.from_numpy(rows))
            numbers = torch.stack([model.score_all(row).argmax() for row in projected])
    return [router.idx_to_model[int(number)] for number in numbers]


def run(folder: Path, name: str) -> dict[str, Any]:
    """One router on one split."""
    router_class, trainer_class, settings = SETTINGS[name]
    rows = np.load(folder / "test.npy")
    config = {
        "data_path": {
            "routing_data_train": str(folder / "train.jsonl"),
            "query_embedding_data": str(folder / "rows.pt"),
        },
        "model_path": {"ini_model_path": "", "save_model_path": str(folder / f"{name}.pkl")},
        "hparam": {**settings, "text_dim": rows.shape[1]} if name == "mf" else settings,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(config))
    torch.manual_seed(0)
    router = getattr(models, router_class)(str(file))
    trainer = getattr(models, trainer_class)(router, device="cpu")
    begin = process_time()
    trainer.train()
    answers = chosen(name, router, trainer.model, rows)
    return {"seconds": process_time() - begin, "chosen": answers}


def main() -> None:
    """Print answers and seconds of all splits as JSON, by router."""
    torch.set_num_threads(1)
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if path.is_dir())
    for folder in folders:
        torch.save(dict(enumerate(torch.from_numpy(np.load(folder / "train.npy")))), folder / "rows.pt")
    with contextlib.redirect_stdout(sys.stderr):
        run(folders[0], "knn")  # imports
        found = {name: [run(folder, name) for folder in folders] for name in SETTINGS}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
