"""What do encoders share that run a vision model of transformers? Checks of its folder, and loading it safely."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from workers.encoders.local_models import FolderOrHub, torch_device
from workers.errors import EncoderError


class VisionModel(FolderOrHub):
    """A folder or hub name of a model that transformers knows by itself; weights in safetensors files only."""

    #: `model_type` of the configurations that it can run.
    model_types: ClassVar[tuple[str, ...]]

    def __init__(self, *, model: str, dtype: str, max_length: int | None, device: str | None, batch: int) -> None:
        super().__init__(dtype=dtype, max_length=max_length, device=device, batch=batch)
        if not isinstance(model, str) or not model:
            raise ValueError(f"model is {model!r}; give a folder or a hub name.")
        self.model = model

    def recipe(self) -> Mapping[str, Any]:
        """That of every local model.

        Raises:
            EncoderError: Not there, an adapter, pickled weights, or a model of another kind.
        """
        folder = self.folder
        where = f"encoder {self.name!r}: {folder}"
        if (folder / "adapter_config.json").is_file():
            raise EncoderError(
                f"{where} holds an adapter (LoRA), not a model; merge it into its base model once and give that folder "
                "(docs/encoders.md)."
            )
        if not any(folder.glob("*.safetensors")):
            raise EncoderError(
                f"{where} holds no *.safetensors file, and pickled weights (*.bin) are not loaded; load it once by "
                "transformers and `save_pretrained` it."
            )
        try:
            found = json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise EncoderError(f"{where}: no config.json that names a `model_type`; give a model folder.") from error
        if found not in self.model_types:
            raise EncoderError(
                f"{where} is a model of type {found!r}; this encoder runs {', '.join(self.model_types)}. "
                "Code that comes with a model is never run."
            )
        return super().recipe()

    def load(self, model_class: Any) -> tuple[Any, Any, Any, str]:
        """Model, tokenizer, image processor and device.

        Args:
            model_class: A class of transformers, `CLIPModel` or `AutoModel`.

        Raises:
            EncoderError: transformers cannot load it, or weights are missing.
        """
        self.recipe()  # its checks
        os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
        import torch
        from safetensors import SafetensorError
        from transformers import AutoImageProcessor, AutoTokenizer
        from transformers.utils import logging

        logging.disable_progress_bar()  # type: ignore[no-untyped-call]
        device = torch_device(self.device)
        folder = str(self.folder)
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, **local)
            # torchvision would resize in another way: rows must not depend on whether it is installed.
            from_folder: Any = AutoImageProcessor.from_pretrained
            processor = from_folder(folder, backend="pil", **local)
            model, loading = model_class.from_pretrained(
                folder,
                dtype=getattr(torch, self.dtype),
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, ImportError, SafetensorError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "memory" in str(error):
                raise
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise EncoderError(
                f"encoder {self.name!r}: {folder} cannot be loaded by transformers ({reason})."
            ) from error
        if missing := sorted(loading["missing_keys"]):
            raise EncoderError(
                f"encoder {self.name!r}: {folder} lacks {len(missing)} of the model's weights, such as {missing[0]!r}; "
                "they would be random. Bring the whole folder."
            )
        return model.eval().to(device), tokenizer, processor, device
