"""Generation with vLLM. The only file that imports it."""

import io
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from nemo_sspo.artifacts.sources.models import local_model
from nemo_sspo.config.engines import VllmEngine as VllmSettings
from nemo_sspo.errors import UserError
from nemo_sspo.rollout.policy_link import constant_name
from nemo_sspo.rollout.protocol import Completion, OnProgress, Sampling
from nemo_sspo.tokens.lengths import model_positions
from nemo_sspo.visible_gpus import visible_gpus

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.logprobs import FlatLogprobs, Logprob
    from vllm.outputs import CompletionOutput

# One process and no pinning of OpenMP threads: several shards may share the machine's cores.
_CPU_VARIABLES = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
# vLLM's own for a CPU, whatever the release: how a batch is filled moves its sums.
_CPU_MAX_NUM_SEQS = 256
_LENGTH_MULTIPLE = 256


class VllmEngine:
    """vLLM behind the `RolloutEngine` protocol.

    One request per prompt asks for all K responses, so that they share the prompt's prefill. Randomness comes from the
    engine's seed alone: a seed per request would force a slow sampling loop on a GPU. An engine may outlive a shard:
    `begin` sets its workers' generators and empties its prefix cache, whose hits would change how sums are rounded.
    """

    def __init__(
        self, policy: str, settings: VllmSettings, *, seed: int, max_model_len: int, stop_token_ids: Sequence[int]
    ) -> None:
        """Load `policy` (directory or hub id) for sequences of up to `max_model_len` tokens."""
        directory = local_model(policy, "policy")
        on_cpu = not visible_gpus()  # found without torch: vLLM's variables must be set before it starts
        for name, value in variables(settings, on_cpu).items():
            os.environ.setdefault(name, value)
        from vllm import LLM

        if not on_cpu:
            # What vLLM compiles is keyed by both: the next iteration's engines find it.
            directory, max_model_len = constant_name(directory), _rounded(max_model_len, directory)
        try:
            self._llm = LLM(**engine_arguments(directory, settings, on_cpu, max_model_len), seed=seed)
        except ValueError as error:
            raise UserError(f"policy={policy}: vLLM refuses it ({_first_line(error)})") from error
        except RuntimeError as error:  # from an engine in its own process, which has logged the reason
            if "initialization failed" not in str(error):
                raise
            raise UserError(
                f"policy={policy}: vLLM's engine did not start: the last ValueError or traceback above says why. "
                "Too little memory: lower rollout.max_response_tokens, raise engine.gpu_memory_utilization or "
                "engine.tensor_parallel, or free the GPU"
            ) from error
        self._stop_token_ids = list(stop_token_ids)

    def begin(self, seed: int) -> None:
        """See `RolloutEngine.begin`. No request may be under way."""
        self._llm.collective_rpc("reseed", args=(seed,))
        if self._llm.reset_prefix_cache() is False:  # some versions return None
            raise RuntimeError("vLLM did not empty its prefix cache: requests hold blocks of it")

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_progress: OnProgress
    ) -> list[list[Completion]]:
        """See `RolloutEngine.generate`. All prompts are in the scheduler at once."""
        from vllm import SamplingParams

        parameters = SamplingParams(
            n=sampling.samples,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            max_tokens=sampling.max_tokens,
            stop_token_ids=self._stop_token_ids,
            logprobs=0,  # the sampled token's own, and no alternatives
            flat_logprobs=True,
            detokenize=False,
        )
        outputs = self._outputs(prompts, parameters, _reporter(on_progress, sampling.samples))
        return [[_completion(completion) for completion in output.outputs] for output in outputs]

    def first_token_logprobs(
        self, prompts: Sequence[Sequence[int]], allowed: Sequence[int], on_progress: OnProgress
    ) -> NDArray[np.float64]:
        """Log-probs [prompts, allowed] of the first token, normalized over `allowed`.

        The engine must have been given ``extra={"logprobs_mode": "processed_logprobs"}``: raw log-probs list the
        likeliest tokens of the whole vocabulary, among which the allowed ones may be missing.
        """
        from vllm import SamplingParams

        parameters = SamplingParams(
            temperature=0.0, max_tokens=1, allowed_token_ids=list(allowed), logprobs=len(allowed), detokenize=False
        )
        outputs = self._outputs(prompts, parameters, _reporter(on_progress, samples=1))
        listed = [cast("list[dict[int, Logprob]]", output.outputs[0].logprobs)[0] for output in outputs]
        return np.array([[tokens[token].logprob for token in allowed] for tokens in listed])

    def _outputs(
        self, prompts: Sequence[Sequence[int]], parameters: "SamplingParams", bar: type
    ) -> "list[RequestOutput]":
        """What became of each prompt, in the order of `prompts`. The longest are sent first: no large prefill is left
        for the end, when few sequences keep the machine busy."""
        from vllm.inputs import TokensPrompt

        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]))
        requests = [TokensPrompt(prompt_token_ids=list(prompts[place])) for place in order]
        found = dict(zip(order, self._llm.generate(requests, parameters, use_tqdm=bar), strict=True))
        return [found[place] for place in range(len(prompts))]


class Reseeding:
    """What vLLM adds to its workers (``worker_extension_cls``), by name: no code travels between processes."""

    def reseed(self, seed: int) -> None:
        """Set every generator that sampling draws from, as the worker's start does."""
        import torch

        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)  # all devices


def variables(settings: VllmSettings, on_cpu: bool) -> dict[str, str]:
    """Environment variables of a process with vLLM, where they are not set already."""
    of_cpus = _CPU_VARIABLES | {"VLLM_CPU_KVCACHE_SPACE": str(settings.cpu_kv_cache_gib)}
    # FlashInfer's sampler is compiled when an engine starts, which fails where there is no nvcc, and where it serves
    # (top_p < 1) it draws by batch, not by request.
    of_gpus = {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
    return {"VLLM_NO_USAGE_STATS": "1"} | (of_cpus if on_cpu else of_gpus)


def engine_arguments(directory: Path, settings: VllmSettings, on_cpu: bool, max_model_len: int) -> dict[str, Any]:
    """Keyword arguments of ``vllm.LLM``, without the seed; those of `settings.extra` win."""
    arguments: dict[str, Any] = {
        "model": str(directory),
        "max_model_len": max_model_len,
        "dtype": settings.dtype,
        "tensor_parallel_size": settings.tensor_parallel,
        "enforce_eager": settings.enforce_eager,
        "enable_prefix_caching": True,
        "logprobs_mode": "raw_logprobs",
        "disable_log_stats": True,
        "worker_extension_cls": f"{__name__}.{Reseeding.__name__}",
    }
    if settings.max_num_seqs is not None or on_cpu:
        arguments["max_num_seqs"] = settings.max_num_seqs or _CPU_MAX_NUM_SEQS
    if on_cpu:
        # vLLM's "auto" would round a float32 policy to bfloat16, which a CPU does not even compute faster.
        dtype = "float32" if settings.dtype == "auto" else settings.dtype
        arguments |= {"enforce_eager": True, "dtype": dtype}
    else:
        arguments["gpu_memory_utilization"] = settings.gpu_memory_utilization
    if settings.quantization is not None:
        arguments["quantization"] = settings.quantization
    return arguments | settings.extra


def _rounded(tokens: int, directory: Path) -> int:
    """A multiple of 256 that is no shorter, where the policy has that many positions."""
    positions = model_positions(directory)
    rounded = -(-tokens // _LENGTH_MULTIPLE) * _LENGTH_MULTIPLE
    return rounded if positions is not None and rounded <= positions else tokens


def _reporter(on_progress: OnProgress, samples: int) -> type:
    """A silent progress bar for vLLM to drive from its engine loop: reporting costs no batching.

    vLLM makes one to iterate over the requests that it adds, which reports nothing, and one that counts responses.
    """
    from tqdm import tqdm

    class Reporter(tqdm):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **(options | {"file": io.StringIO()}))

        def update(self, n: float | None = 1) -> bool | None:
            shown = super().update(n)
            if self.iterable is None:
                on_progress(int(self.n) // samples)
            return shown

    return Reporter


def _completion(output: "CompletionOutput") -> Completion:
    token_ids, logprobs = list(output.token_ids), list(cast("FlatLogprobs", output.logprobs).logprobs)
    if len(token_ids) != len(logprobs) or output.finish_reason not in ("stop", "length"):
        raise RuntimeError(
            f"vLLM returned {len(token_ids)} tokens, {len(logprobs)} log-probs, finish_reason {output.finish_reason!r}"
        )
    return Completion(token_ids, logprobs, output.finish_reason)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
