"""Every refusal of a run is one that a dry run knows, or is listed here as one that only running can tell.

A refusal is a function that raises a UserError. One that is not listed must be seen refusing in a dry run of `CASES` or
of `ON_SLURM`.
"""

import ast
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nemo_sspo import cli
from nemo_sspo.artifacts.layout import RunLayout
from nemo_sspo.artifacts.removed import mark_removed
from nemo_sspo.config.load import load_experiment
from nemo_sspo.errors import UserError
from nemo_sspo.launch.checks.functions import check_functions
from nemo_sspo.launch.checks.models import check_encoder, check_policy
from nemo_sspo.launch.checks.oracle import check_oracle
from nemo_sspo.launch.checks.prompts import check_prompts
from nemo_sspo.launch.checks.responses import check_responses
from nemo_sspo.launch.preflight import (
    check_candidates,
    check_precision,
    check_run_directory,
    check_stored_experiment,
    check_training,
    problems,
)
from nemo_sspo.launch.run_directory import bind
from nemo_sspo.launch.slurm.job_record import Submission, append_submission
from nemo_sspo.launch.slurm.sbatch import RunPaths
from tests.json_edit import edit
from tests.launch import ready_run
from tests.launch.published import publish_steps
from tests.launch.slurm.stand_in import queue
from tests.launch.tiny_models import ORACLE_TENSORS, write_tensors

OTHER_COMMANDS = (
    *("cli", "commands/", "doctor/", "estimate/", "lab/", "public_benchmarks/", "report/", "reproduce/"),
    *("launch/benchmark", "launch/redo", "stages/evaluation/benchmark", "stages/evaluation/win_rates_between"),
)
"""Rooms of commands that are none of a run, and the command line, which shows what a dry run has found."""
PACKAGE = Path(sys.modules["nemo_sspo"].__path__[0])

ONLY_RUNNING = {
    "a number, a text or a row that an earlier step made": (
        "artifacts/facts/base:of",
        "artifacts/store:file",
        "artifacts/store:open_artifact",
        "artifacts/store:refuse_changes",
        "artifacts/versioned_file:read_versioned",
        "artifacts/shard:_refuse_other_responses",
        "artifacts/shard:join_pairs",
        "artifacts/shard:join_scores",
        "artifacts/shard:join_vectors",
        "artifacts/shard:read_shard",
        "artifacts/table:_readable",
        "artifacts/table:open",
        "artifacts/token_record:read_token_record",
        "megatron/batches/fit:require_fit",
        "megatron/batches/microbatch:__post_init__",
        "megatron/batches/microbatch_plan:_pair_tokens",
        "megatron/batches/pairs:_aligned",
        "megatron/batches/pairs:_refuse_not_finite",
        "megatron/batches/pairs:read",
        "megatron/checkpoints/adapter_files:write_peft",
        "megatron/checkpoints/states:_refuse_another_trainer",
        "megatron/checkpoints/streamed:_items",
        "megatron/checkpoints/streamed:read",
        "megatron/checkpoints/streamed:resolve_data",
        "megatron/checkpoints/weights:_stored_tensors",
        "megatron/checkpoints/weights:load_weights",
        "megatron/checkpoints/weights:require_tensors",
        "stages/evaluation/best_of_n:read_samples",
        "stages/evaluation/evaluate:run",
        "stages/evaluation/select_model:_steps",
        "stages/evaluation/select_model:run",
        "stages/pairs/build_pairs:_refuse_repeated",
        "stages/pairs/build_pairs:run",
        "stages/pairs/join:join_shard",
        "stages/pairs/join:similarities",
        "stages/training/checked_reference:refuse_other_reference",
        "stages/training/train:take_in_candidate",
        "megatron/models/finite:refuse_not_finite",
        "megatron/models/hf_files:__getitem__",
        "encoder/windows:cut",
        "rollout/tokenizer:refuse_other_tokens",
        "stages/sampling/rollout_logps:_positions",
        "stages/sampling/rollout_table:_response",
        "stages/sampling/score:refuse_not_finite",
        "stages/sampling/rollout:_shard_of",
    ),
    "what a model, an endpoint or a function of the user's answers": (
        "oracle/function:compare",
        "oracle/judge/llm_judge:_ask",
        "oracle/judge/llm_judge:_ask_and_keep",
        "oracle/judge/llm_judge:_judgement",
        "oracle/judge/llm_judge:_request",
        "oracle/judge/llm_judge:_refuse_plan",
        "oracle/reward_model/model:_apply_template",
        "stages/sampling/judging:refuse_all_ties",
    ),
    "files that a judge's earlier attempts wrote": (
        "oracle/judge/journal:_record",
        "oracle/judge/ledger:_entries",
        "oracle/judge/ledger:_read",
    ),
    "what a library that the launcher lacks makes of files": (
        "artifacts/sources/records:_of_dataset",
        "encoder/sentence:_compare_with_the_library",
        "encoder/sentence:_encode_whole",
        "encoder/sentence:_encode_windows",
        "encoder/sentence:_forward_options",
        "encoder/sentence:_load",
        "encoder/sentence:encode",
        "encoder/tokenizers:hold_tokenizers",
        "encoder/weights:refuse_other_weights",
        "megatron/models/hf_files:__init__",
        "oracle/pairrm/model:_load_model",
        "oracle/pairrm/model:_read_pickle",
        "oracle/pairrm/model:_read_weights",
        "oracle/judge/policy_judge:__init__",
        "oracle/reward_model/model:__init__",
        "oracle/reward_model/weights:_load_model",
        "rollout/tokenizer:load_policy_tokenizer",
        "rollout/vllm_engine:__init__",
        "tokens/library:_held",
        "tokens/library:load_tokenizer",
        "tokens/library:require_same",
        "tokens/own_file:__init__",
    ),
    "asked by a dry run in the environment's own interpreter": (
        "config/binding:_custom",
        "config/binding:import_function",
        "encoder/files:model_directory",
        "megatron/installed:named_trainer",
        "megatron/nemo/versions:require_nemo",
        "megatron/observers/loggers:require_loggers",
        "megatron/versions:megatron_core_version",
        "megatron/versions:require_version",
    ),
    "settings of a command that is none of a run": ("config/load:change_experiment", "config/load:describe"),
    "what the settings' own types refuse before": ("launch/slurm/sbatch:directive",),
    "the GPU of the machine": (
        "megatron/layers/spec:takes_transformer_engine",
        "megatron/models/precision:require_support",
    ),
    "the machine while it runs: disk, locks, Slurm, what started the ranks": (
        "artifacts/node_folder:make_node_folder",
        "artifacts/store:publish",
        "launch/local/runner:_check_published",
        "launch/run_directory:_try_lock",
        "launch/run_directory:hold",
        "launch/slurm/commands:_call",
        "launch/slurm/commands:sbatch",
        "launch/slurm/submit:_sbatch",
        "launch/slurm/submit:_take_back",
        "megatron/runtime/ranks:_fork",
        "megatron/runtime/ranks:on_every_rank",
        "stages/runner/freshness:refuse_changed_since",
        "stages/runner/freshness:refuse_stale_inputs",
        "stages/runner/torch_extensions:_release",
    ),
    "what no policy that is read here asks of Megatron": (
        "megatron/batches/row_shape:for_layout",
        "megatron/batches/row_shape:row_length",
        "megatron/layers/core_attention:__init__",
        "megatron/layers/flex_attention:__init__",
        "megatron/layers/prompt_sharing:rotary_by_position",
        "megatron/loss/hidden_states:_run",
        "megatron/loss/hidden_states:output_weight",
        "megatron/loss/hidden_states:unwrap",
    ),
    "a problem that a dry run lists, raised by a stage at the first": (
        "artifacts/sources/models:local_model",
        "artifacts/sources/weight_files:weight_files",
        "encoder/sentence:__init__",
        "megatron/checkpoints/convert:import_policy",
        "megatron/nemo/policy_config:_config_class",
        "stages/training/train:refuse_too_many_candidates",
        "megatron/models/fields:transformer_fields",
        "megatron/models/refusals:policy_for",
        "stages/sampling/further_prompts:run",
        "stages/runner/importable:refuse_unimportable",
        "stages/sampling/prepare_prompts:_refuse_empty",
        "stages/sampling/prepare_prompts:ready",
        "stages/sampling/prepare_prompts:run",
        "stages/sampling/rollout:_engine",
        "stages/sampling/given_responses:_response",
        "stages/sampling/given_responses:take_given",
        "tokens/own_file:own_file",
    ),
}
"""``room/module:function`` by what it takes to know."""

CHECKS = (
    *(check_functions, check_prompts, check_responses, check_policy, check_oracle, check_encoder),
    *(check_training, check_precision, check_candidates, check_run_directory, check_stored_experiment),
)
"""Those that read files and settings; the others start interpreters."""

ANSWERS = {"prompt": "Q?", "responses": ["a", "b"]}
PROMPTS: dict[str, object] = {
    "no JSON": b"{",
    "half a character": {"prompt": "\ud800"},
    "no object": [1],
    "no prompt": {"text": "a"},
    "an empty prompt": {"prompt": ""},
    "no message": {"messages": []},
    "no text": {"prompt": "a", "system": [1]},
    "no text below an instruction": {"instruction": "a", "input": [1]},
    "no user": {"conversations": []},
    "a control token": {"prompt": "<|end|>"},
    "twice": {"prompt": "Question 1?"},
}
RESPONSES: dict[str, object] = {
    "one response": {"prompt": "Q?", "responses": ["a"]},
    "another number": {"prompt": "P?", "responses": ["a", "b", "c"]},
    "no text": {"prompt": "Q?", "responses": [1, "b"]},
    "another conversation": {"prompt": "Q?", "chosen": [{"role": "user", "content": "x"}], "rejected": "b"},
    "another end": ANSWERS | {"finish_reasons": ["stop", "lost"]},
}
POLICY: dict[str, dict[str, object]] = {
    "a family": {"model_type": "gpt2"},
    "a field": {"num_hidden_layers": None},
    "rotary": {"rope_scaling": {"rope_type": "llama3"}},
    "rotary twice": {"rope_parameters": {"rope_type": "default"}, "rope_scaling": {"rope_type": "llama3", "factor": 2}},
    "experts": {"model_type": "qwen3_moe", "mlp_only_layers": 3},
    "windows": {"model_type": "qwen3", "use_sliding_window": True, "layer_types": ["full_attention"]},
}
TEMPLATES = {
    "fails": "{{ 1 / 0 }}",
    "another turn": "{% for m in messages %}{{ m.content }}{% endfor %}{{ '<|end|>' if add_generation_prompt }}",
    "no Jinja": "{% if %}",
    "endless": "{{ 'a' * 10 ** 10 }}",
}
TOKENIZERS: dict[str, dict[str, object]] = {
    "no vocabulary": {"model": []},
    "no id": {"model": {"type": "BPE", "vocab": {"a": "b"}, "merges": []}},
    "no rules": {"pre_tokenizer": {"type": "Nothing"}},
}
WITHOUT_LETTERS = {"type": "BPE", "vocab": {"a": 0}, "merges": []}
TIGHT = "oracle.context_tokens=100"
FEWER_ROWS = ORACLE_TENSORS | {"pretrained_model.embeddings.word_embeddings.weight": [9, 2]}
Case = Callable[[Path], tuple[str, ...]]


def write(path: Path, content: object) -> str:
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path.name


def append(path: Path, content: object) -> None:
    with path.open("ab") as file:
        file.write((content if isinstance(content, bytes) else json.dumps(content).encode()) + b"\n")


def of_prompts(content: object) -> Case:
    return removed(then=lambda place: append(place / "prompts.jsonl", content))


def of_responses(content: object) -> Case:
    def case(place: Path) -> tuple[str, ...]:
        append(place / "r.jsonl", ANSWERS | {"prompt": "P?"} if "P?" not in str(content) else ANSWERS)
        append(place / "r.jsonl", content)
        return ("rollout.source=r.jsonl",)

    return case


def of_policy(file: str, changes: dict[str, object]) -> Case:
    return removed(then=lambda place: edit(place / "policy" / file, **changes))


def of_template(text: bytes) -> Case:
    return removed(then=lambda place: (place / "policy" / "chat_template.jinja").write_bytes(text))


def of_plain_vocabulary(file: str, content: object, config: dict[str, object], **beside: bytes) -> Case:
    def case(place: Path) -> tuple[str, ...]:
        policy = place / "policy"
        (policy / "tokenizer.json").unlink()
        edit(policy / "tokenizer_config.json", **config)
        write(policy / file, content)
        for name, text in beside.items():
            (policy / f"{name}.txt").write_bytes(text)
        return ()

    return case


def removed(*names: str, then: Callable[[Path], object] = lambda place: None, overrides: tuple[str, ...] = ()) -> Case:
    """A case without some files of the ready run, and with what `then` does."""

    def case(place: Path) -> tuple[str, ...]:
        for name in names:
            (place / name).unlink()
        then(place)
        return overrides

    return case


def of_file(name: str, content: object, *overrides: str) -> Case:
    return removed(then=lambda place: write(place / name, content), overrides=overrides)


def _splits(place: Path) -> None:
    (place / "folder").mkdir()
    for split in ("test", "dev"):
        (place / "folder" / f"{split}.jsonl").write_text("")


def _endless(place: Path) -> None:
    (place / "p.jsonl").symlink_to("/dev/zero")


def _own_yaml(place: Path) -> tuple[str, ...]:
    (place / "conf" / "gate").mkdir(parents=True)
    (place / "conf" / "gate" / "mine.yaml").write_bytes(b"\xff")
    return ("gate=mine",)


def _too_large(place: Path) -> None:
    with (place / "policy" / "config.json").open("wb") as file:
        file.truncate(2**27)


def of_run(*steps: str, then: Callable[[Path], object], overrides: tuple[str, ...] = ()) -> Case:
    """A run that has published some steps, and what `then` does to its directory."""

    def case(place: Path) -> tuple[str, ...]:
        experiment = load_experiment(["experiment=quickstart", *ready_run.OVERRIDES])
        publish_steps(experiment, *steps)
        bind(experiment, RunLayout(experiment.run_dir))
        then(experiment.run_dir)
        return overrides

    return case


def _gone(run: Path) -> None:
    mark_removed(run / "iter_0" / "import_policy", ["content.txt"])
    (run / "iter_0" / "import_policy" / "content.txt").unlink()


def _submitted(place: Path) -> None:
    run = RunPaths(place / "runs" / "quickstart", place)
    run.state.mkdir(parents=True)
    append_submission(run, Submission("prepare_prompts", "101", (0,), 0.0))


def _alive(place: Path) -> tuple[str, ...]:
    _submitted(place)
    queue(place / "runs" / "quickstart", "101|101|N/A|PENDING|Priority|{}")
    return ()


def _without_squeue(place: Path) -> tuple[str, ...]:
    _submitted(place)
    (place / "bin" / "squeue").unlink()
    os.environ["PATH"] = str(place / "bin")  # the fixture `slurm` puts it back; this machine may have a real one
    return ()


def _bytes_of_no_text(place: Path) -> None:
    bounds, text = pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")
    pq.write_table(
        pa.table({"prompt": pa.Array.from_buffers(pa.string(), 1, [None, bounds, text])}), place / "p.parquet"
    )


LONG = b"\n".join(
    json.dumps({"prompt": f"Question {number}?", "responses": ["x" * 99, "b"]}).encode() for number in range(30)
)
BERT: dict[str, object] = {"tokenizer_class": "BertTokenizer"}
MERGES: dict[str, object] = {"tokenizer_class": "GPT2Tokenizer"}
CASES: dict[str, Case] = {
    **{f"prompts: {name}": of_prompts(content) for name, content in PROMPTS.items()},
    **{f"responses: {name}": of_responses(content) for name, content in RESPONSES.items()},
    **{f"policy: {name}": of_policy("config.json", changes) for name, changes in POLICY.items()},
    **{f"template: {name}": of_template(text.encode()) for name, text in TEMPLATES.items()},
    **{f"tokenizer: {name}": of_policy("tokenizer.json", changes) for name, changes in TOKENIZERS.items()},
    "template: no UTF-8": of_template(b"\xff"),
    "template: none": of_policy("tokenizer_config.json", {"chat_template": None}),
    "template: an argument": lambda place: ("+data.template_arguments.think=true",),
    "tokenizer: a row": of_policy("config.json", {"vocab_size": 10}),
    "tokenizer: a key": of_policy("tokenizer_config.json", {"added_tokens_decoder": {"x": {}}}),
    "tokenizer: no SentencePiece": removed(
        "policy/tokenizer.json", then=lambda place: (place / "policy" / "tokenizer.model").write_bytes(b"\xff\0")
    ),
    "vocabulary: a class": of_plain_vocabulary("vocab.json", {"a": 0}, {"tokenizer_class": "CTRLTokenizer"}),
    "vocabulary: no ids": of_plain_vocabulary("vocab.json", {"a": "b"}, MERGES),
    "vocabulary: no merges": of_plain_vocabulary("vocab.json", {"a": 0}, MERGES),
    "vocabulary: case": of_plain_vocabulary("vocab.txt", b"Word\n", BERT),
    "vocabulary: a setting": of_plain_vocabulary(
        "vocab.json", {"a": 0}, MERGES | {"add_prefix_space": "x"}, merges=b"#version: 0.2\n"
    ),
    "vocabulary: no unknown": of_plain_vocabulary("vocab.txt", b"word\n", BERT | {"do_lower_case": True}),
    "vocabulary: bad merges": of_plain_vocabulary("vocab.json", {"a": 0}, MERGES, merges=b"#version: 0.2\na b\n"),
    "a source: none": lambda place: ("prompts=absent.jsonl",),
    "a source: splits": removed(then=_splits, overrides=("prompts=folder",)),
    "a source: its kind": of_file("p.txt", b"", "prompts=p.txt"),
    "a source: no file": removed(then=_endless, overrides=("prompts=p.jsonl",)),
    "a source: a long line": of_file("p.jsonl", b" " * (2**26 + 1), "prompts=p.jsonl"),
    "a source: no gzip": of_file("p.jsonl.gz", b"x", "prompts=p.jsonl.gz"),
    "a source: a long list": of_file("p.json", b'[{"prompt": "a"},' + (b" " * 2**20 + b"\n") * 64, "prompts=p.json"),
    "a source: no CSV": of_file("p.csv", b'prompt\n"a', "prompts=p.csv"),
    "a source: a CSV header": of_file("p.csv", b"prompt,prompt\na,b\n", "prompts=p.csv"),
    "a source: CSV of another encoding": of_file("p.csv", b"prompt\n\xff\n", "prompts=p.csv"),
    "a source: no column": of_file("p.csv", b"text\na\n", "prompts=p.csv"),
    "a source: a column by another name": lambda place: ("data.columns.system=sys_text",),
    "a source: many fields": of_file("p.jsonl", b'{"prompt": "' + b'":' * 1_000_001 + b'"}', "prompts=p.jsonl"),
    "a source: no Parquet": of_file("p.parquet", b"x", "prompts=p.parquet"),
    "a source: no text in Parquet": removed(then=_bytes_of_no_text, overrides=("prompts=p.parquet",)),
    "labels": of_file("l.jsonl", ANSWERS, "evaluation.labelled_pairs=l.jsonl"),
    "given: none for a prompt": of_file("r.jsonl", ANSWERS, "rollout.source=r.jsonl"),
    "given: too long": of_file("r.jsonl", LONG, "rollout.source=r.jsonl", "rollout.max_response_tokens=16"),
    "weights: another set": removed(
        then=lambda place: write(place / "policy" / "model.safetensors.index.json", {"weight_map": {"a": "b"}})
    ),
    "weights: no index": removed(
        "policy/model.safetensors",
        then=lambda place: write(place / "policy" / "model.safetensors.index.json", [1]),
    ),
    "weights: no header": removed(then=lambda place: write(place / "policy" / "model.safetensors", b"x")),
    "oracle: no weights": removed("oracle/model.safetensors"),
    "oracle: others' weights": removed(
        then=lambda place: (place / "oracle" / "model.safetensors").write_bytes(
            (place / "policy" / "model.safetensors").read_bytes()
        )
    ),
    "oracle: a ranker": removed(then=lambda place: edit(place / "oracle" / "config.json", ranker_type="other")),
    "oracle: a size": removed(then=lambda place: edit(place / "oracle" / "config.json", hidden_size=None)),
    "oracle: a size of no number": removed(then=lambda place: edit(place / "oracle" / "config.json", hidden_size="2")),
    "oracle: a marker": removed(then=lambda place: edit(place / "oracle" / "config.json", cand1_prefix_id=7)),
    "oracle: a row": removed(then=lambda place: write_tensors(place / "oracle" / "model.safetensors", FEWER_ROWS)),
    "oracle: no frame": removed(then=lambda place: edit(place / "oracle" / "tokenizer.json", post_processor=None)),
    "settings: several": lambda place: ("seed=1,2",),
    "settings: no choice": lambda place: ("gate=absent",),
    "settings: no value": lambda place: ("gate",),
    "settings: no such one": lambda place: ("train.absent=1",),
    "settings: nothing behind": lambda place: ("seed=${absent}",),
    "settings: own YAML": _own_yaml,
    "policy: a file": lambda place: ("policy=prompts.jsonl",),
    "encoder: its modules": of_file("encoder/modules.json", [1], "encoder.path=encoder"),
    "run: no manifest": of_run("prepare_prompts", then=lambda run: write(run / "prompts" / "manifest.json", 1)),
    "run: a damaged file": of_run("prepare_prompts", then=lambda run: write(run / "prompts" / "content.txt", "x" * 99)),
    "run: other settings": of_run("prepare_prompts", then=lambda run: None, overrides=("seed=7",)),
    "run: weights that are gone": of_run("iter_0.import_policy", then=_gone),
    "run: a list of what is gone": of_run(
        "prepare_prompts", then=lambda run: write(run / "prompts" / "removed.json", 1)
    ),
    "policy: no JSON": of_file("policy/config.json", b"{"),
    "policy: a list": of_file("policy/config.json", [1]),
    "policy: too large": removed(then=_too_large),
    "judge: no key": lambda place: (
        "oracle=llm_judge",
        "oracle.endpoint=https://h/v1",
        "oracle.model=m",
        "oracle.api_key_variable=NO_SUCH_VARIABLE",
    ),
    "judge: no URL": lambda place: ("oracle=llm_judge", "oracle.endpoint=h", "oracle.model=m"),
    "judge: no token": removed(
        then=lambda place: edit(place / "policy" / "tokenizer.json", pre_tokenizer=None, model=WITHOUT_LETTERS),
        overrides=("oracle=policy_judge",),
    ),
    "judge: a long question": of_file(
        "t.txt", b"x" * 200 + b"{prompt}{first}{second}", "oracle=policy_judge", "oracle.template=t.txt", TIGHT
    ),
    "judge: a template": lambda place: ("oracle=policy_judge", "oracle.template=absent.txt"),
}


ON_SLURM: dict[str, Callable[[Path], tuple[str, ...]]] = {
    "no cluster": lambda place: ("cluster=local_cpu",),
    "ranks that fill no nodes": lambda place: ("cluster.ranks_per_node=3",),
    "a control character": lambda place: ("runs_dir='a\x1bb'",),
    "a mount": lambda place: ("cluster.rollout.image=/i.sqsh", "cluster.rollout.mounts=[here]"),
    "the second part first": lambda place: ("--iterations", "2", "iterations=2"),
    "jobs that live": _alive,
    "jobs that may live": _without_squeue,
}
"""Further words of ``nemo-sspo submit --dry-run`` on a machine with stand-ins for Slurm's commands."""


def refusals() -> Iterator[str]:
    """``room/module:function`` of every function that raises a UserError."""
    for file in PACKAGE.rglob("*.py"):
        module = file.relative_to(PACKAGE).with_suffix("").as_posix()
        if module.startswith(OTHER_COMMANDS):
            continue
        for function, node in _inside(ast.parse(file.read_text(encoding="utf-8")), ""):
            if isinstance(node, ast.Raise) and node.exc is not None and "UserError" in ast.dump(node.exc):
                yield f"{module}:{function}"


def _inside(node: ast.AST, function: str) -> Iterator[tuple[str, ast.AST]]:
    for child in ast.iter_child_nodes(node):
        yield function, child
        yield from _inside(child, getattr(child, "name", function) if _is_function(child) else function)


def _is_function(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


@pytest.fixture(scope="module")
def seen() -> set[str]:
    """Functions that have refused something in a dry run."""
    return set()


@pytest.fixture
def recorded(seen: set[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Call it to have every function that raises from now on be seen, once the test has passed."""
    raised: set[str] = set()

    def recording(error: UserError, *arguments: object) -> None:
        frame = sys._getframe(1)
        file = Path(frame.f_code.co_filename)
        if file.is_relative_to(PACKAGE):
            raised.add(f"{file.relative_to(PACKAGE).with_suffix('').as_posix()}:{frame.f_code.co_name}")
        Exception.__init__(error, *arguments)

    yield lambda: monkeypatch.setattr(UserError, "__init__", recording)
    seen |= raised


@pytest.mark.parametrize("name", CASES)
def test_a_dry_run_refuses(name: str, place: Path, recorded: Callable[[], None]) -> None:
    overrides = CASES[name](place)
    oracle = () if any(override.startswith("oracle=") for override in overrides) else ready_run.PAIRRM
    recorded()
    try:
        found = problems(load_experiment(["experiment=quickstart", *ready_run.REST, *oracle, *overrides]), CHECKS)
    except UserError as error:
        found = [str(error)]
    assert found


@pytest.mark.parametrize("name", ON_SLURM)
def test_a_dry_run_on_slurm_refuses(
    name: str, place: Path, slurm: list[str], recorded: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ON_SLURM[name](place)
    recorded()
    assert cli.main(["submit", "--dry-run", *slurm, *words]) == UserError.EXIT_CODE
    assert "error: " in capsys.readouterr().err


def test_a_dry_run_on_this_machine_is_none_on_a_cluster(
    slurm: list[str], recorded: Callable[[], None], capsys: pytest.CaptureFixture[str]
) -> None:
    recorded()
    assert cli.main(["run", "--dry-run", *slurm]) == UserError.EXIT_CODE
    assert "cluster.kind=slurm" in capsys.readouterr().err


def test_no_stage_refuses_what_a_dry_run_has_not_been_seen_to_refuse(seen: set[str]) -> None:
    listed = {function for functions in ONLY_RUNNING.values() for function in functions}
    every = set(refusals())
    assert listed <= every, sorted(listed - every)
    assert every - listed <= seen, sorted(every - listed - seen)
