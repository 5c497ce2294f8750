"""Embed every response of a rollout shard: vectors.zarr and the row of each response id in it."""

import time

import numpy as np

from nemo_sspo.artifacts.facts.sampling import EmbeddingFacts
from nemo_sspo.artifacts.tables import EMBEDDING_INDEX, ROLLOUTS
from nemo_sspo.artifacts.vectors import write_vectors
from nemo_sspo.encoder.registry import load_encoder
from nemo_sspo.stages.runner.context import StageContext
from nemo_sspo.stages.sampling.gpu_memory import peak_gpu_memory_gib
from nemo_sspo.stages.sampling.judged_text import reader


def run(context: StageContext) -> None:
    """Publish vectors.zarr (array ``vectors`` [N, D], unit rows) and index.parquet (a row per response id)."""
    table = ROLLOUTS.read(context.input("rollout").path)
    responses = table.column("responses").combine_chunks().flatten()
    ids, texts = responses.field("response_id").to_pylist(), responses.field("text").to_pylist()
    read = reader(context.experiment.judging, context.input("rollout"))
    by_id = dict(zip(ids, map(read, texts), strict=True))  # equal responses to a prompt share an id
    context.progress.update(0, len(by_id), unit="responses", note="loading the encoder")

    encoder = context.load_once(lambda: load_encoder(context.experiment.encoder))
    started = time.monotonic()
    embeddings = encoder.encode(
        list(by_id.values()), lambda done: context.progress.update(done, len(by_id), unit="responses")
    )
    seconds = time.monotonic() - started

    vectors_ND = embeddings.vectors_ND.astype(context.experiment.encoder.storage)
    write_vectors(context.output.path, vectors_ND)
    index = {"response_id": list(by_id), "row": np.arange(len(by_id), dtype=np.int32)}
    EMBEDDING_INDEX.write(context.output.path, index)
    context.output.rows = len(by_id)
    context.output.facts = EmbeddingFacts(
        responses=len(by_id),
        unique_texts=embeddings.unique_texts,
        long_texts=int(embeddings.long_N.sum()),
        dimension=vectors_ND.shape[1],
    )
    context.output.timings |= {"encoding_seconds": seconds, "responses_per_second": len(by_id) / seconds}
    if (memory := peak_gpu_memory_gib()) is not None:
        context.output.timings["peak_gpu_memory_gib"] = memory
